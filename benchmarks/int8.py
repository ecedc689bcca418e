"""Measures the AP of ONNX files on a run's validation data, in ONNX Runtime and in OpenVINO, and prints the table of docs/int8.md.

    python benchmarks/int8.py runs/bccd full.onnx int8.onnx

It evaluates on all validation images. The speeds in docs/int8.md come from `kfpn benchmark runs/bccd full.onnx int8.onnx`.
"""

import argparse
from pathlib import Path

from kfpn.export.onnx.int8 import evaluate_onnx, validation_source
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime, in_openvino
from kfpn.runs.workdir import Workdir


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    files = Workdir(options.workdir)
    config, (class_names, _) = files.read_config(), files.read_classes()
    source = validation_source(config)
    print(f"{source.name}: {len(source)} images\n\n| file | runtime | AP | AP50 | AP75 |\n|---|---|---|---|---|")
    for path in options.files:
        for name, load in (("ONNX Runtime", in_onnxruntime), ("OpenVINO", in_openvino)):
            figures = evaluate_onnx(path, source, range(len(source)), config, class_names, load)
            print(
                f"| {path.name} | {name} | {figures['AP']:.4f} | {figures['AP50']:.4f} | {figures['AP75']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
