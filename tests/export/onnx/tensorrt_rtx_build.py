"""Parses an ONNX file with TensorRT-RTX, in a process and an environment of its own, and prints the result as JSON.

python tensorrt_rtx_build.py FILE.onnx [--build]
"""

import json
import sys

import tensorrt_rtx as trt


def main(path: str, build: bool) -> None:
    """Prints whether the file was parsed, its layers, the errors and, with `build`, the engine's bytes (0 without an engine)."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(path)
    errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
    result = {"parsed": parsed, "layers": network.num_layers, "errors": errors}
    if build:
        engine = builder.build_serialized_network(network, builder.create_builder_config()) if parsed else None
        result["engine"] = 0 if engine is None else engine.nbytes
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], "--build" in sys.argv)
