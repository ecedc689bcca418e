"""Trains detectors on several backbones for the same time on the built-in shapes, from random weights, and prints a table.

    python benchmarks/backbones.py --minutes 10                  # all of BACKBONES, with kfpn's own two to compare
    python benchmarks/backbones.py --minutes 1 --backbones keras:mobilenet_v3_large --no-export
    python benchmarks/backbones.py --minutes 10 --options --no-jit-compile

Each gets the preset `shapes` with another `--model.backbone`, and nothing else is tuned. Then it is exported to SavedModel and ONNX,
both verified against Keras, timed on one image of `--size` (`kfpn benchmark`), and its images are looked at alone and in a padded
batch (`padding.py`). Each step is a process of its own. The rows go to OUTPUT/backbones.json as they come; a run that stands there
already is not repeated. The table is Markdown, for docs/backbones.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]
BACKBONES = ("resnet18", "resnet50", "keras:efficientnetv2-b0", "keras:convnext_tiny", "keras:mobilenet_v3_large")
OPTIONS = {
    "resnet18": ("--model.backbone-width", "32"),  # the preset's own
    "resnet50": ("--model.backbone-width", "64"),
}
"""Backbone -> options that it gets."""
LEVELS = ("P2", "P3", "P4", "P5")


def call(words: Sequence[str], log: Path) -> str:
    """Runs a command, keeps what it prints in a file, and returns that.

    Raises:
        SystemExit: if it fails, with the file's name.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        code = subprocess.run([sys.executable, *words], stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        raise SystemExit(f"{' '.join(words)} ended with {code}: see {log}")
    return log.read_text(encoding="utf-8")


def train(backbone: str, workdir: Path, minutes: float, options: Sequence[str]) -> dict[str, Any]:
    """Trains on the shapes, and returns the figures."""
    words = [
        "-m",
        "kfpn",
        "train",
        "--minutes",
        f"{minutes:g}",
        "--model.backbone",
        backbone,
        "--workdir",
        str(workdir),
    ]
    call([*words, *OPTIONS.get(backbone, ()), *options], workdir.with_suffix(".train.log"))
    final = json.loads((workdir / "final.json").read_text(encoding="utf-8"))
    return {name: final.get(name) for name in ("AP", "AP50", "steps", "seconds")}


def weights_of(workdir: Path) -> dict[str, float]:
    """Returns the weights of the backbone and of the whole detector, in millions."""
    from kfpn.runs.load import load_submodels
    from kfpn.runs.workdir import Workdir
    from kfpn.weights.built_detector import variables_of

    sizes = {
        key: variable.value.shape.num_elements()
        for key, variable in variables_of(load_submodels(Workdir(workdir))).items()
    }
    behind = ("lateral_", "output_", "rpn_", "head_", "mask_", "merge_", "upsample_")
    return {
        "backbone_millions": sum(size for key, size in sizes.items() if not key.startswith(behind)) / 1e6,
        "millions": sum(sizes.values()) / 1e6,
    }


def milliseconds(workdir: Path, size: int) -> float:
    """Returns the median time of one image of size x size in Keras, compiled by XLA."""
    import numpy as np

    from kfpn.export.benchmark.race import contestants, race

    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    (entrant,) = contestants([str(workdir)])
    race([entrant], image, runs=7, progress=False)
    if entrant.fault:
        raise SystemExit(f"{workdir} could not be timed: {entrant.fault}")
    return 1e3 * sorted(entrant.seconds)[len(entrant.seconds) // 2]


def padding_of(workdir: Path) -> dict[str, float]:
    """Returns how the levels of an image in a padded batch differ from those of the image alone, in standard deviations."""
    text = call(
        [str(ROOT / "benchmarks" / "padding.py"), "--workdir", str(workdir)], workdir.with_suffix(".padding.log")
    )
    return {level: float(re.search(rf"of {level}: (\S+)", text)[1]) for level in LEVELS}  # type: ignore[index]


def export(workdir: Path) -> None:
    """Exports to SavedModel and ONNX, which are compared with Keras before they appear."""
    folder = workdir.with_name(f"{workdir.name}-exports-{int(time.time())}")
    call(
        ["-m", "kfpn", "export", "saved_model", str(workdir), str(folder / "served"), "--verify"],
        workdir.with_suffix(".sm.log"),
    )
    call(["-m", "kfpn", "export", "onnx", str(workdir), str(folder / "model.onnx")], workdir.with_suffix(".onnx.log"))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown."""

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"  # no evaluation fits into a very short run

    lines = [
        "| backbone | AP | AP50 | steps | weights, millions: backbone, all | ms an image | padding: P2, P5, in standard deviations | exports |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        padding = f"{row['padding']['P2']:.0e}, {row['padding']['P5']:.0e}"
        lines.append(
            f"| `{row['backbone']}` | {figure(row['AP'])} | {figure(row['AP50'])} | {row['steps']} | {row['backbone_millions']:.1f}, "
            f"{row['millions']:.1f} | {row['ms']:.0f} | {padding} | {'verified' if row['exported'] else 'not made'} |"
        )
    return "\n".join(lines)


def measure(backbone: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the row of a backbone."""
    workdir = Path(options.output) / re.sub(r"\W+", "_", backbone)
    row = {
        "backbone": backbone,
        "minutes": options.minutes,
        **train(backbone, workdir, options.minutes, options.options),
    }
    row |= weights_of(workdir) | {"ms": milliseconds(workdir, options.size), "padding": padding_of(workdir)}
    if options.export:
        export(workdir)
    return row | {"exported": options.export}


def main() -> None:
    """Measures all backbones and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training, from its start to its exit")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--size", type=int, default=512, help="side of the image that is timed, in pixels")
    parser.add_argument("--output", default="runs/backbones")
    parser.add_argument("--export", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="of kfpn train, for all of them; the last"
    )
    options = parser.parse_args()
    kept = Path(options.output) / "backbones.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    for backbone in options.backbones:
        if not any((row["backbone"], row["minutes"]) == (backbone, options.minutes) for row in rows):
            rows.append(measure(backbone, options))
            kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(table([row for row in rows if row["minutes"] == options.minutes and row["backbone"] in options.backbones]))


if __name__ == "__main__":
    main()
