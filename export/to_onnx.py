"""Writes an ONNX file of a trained detector: `python export/to_onnx.py runs/shapes shapes.onnx`.

The same as `kfpn export onnx`. It prints how the file compares with the Keras model in ONNX Runtime, and its size.
`--input-shape 1x800x1344x3` writes a file for TensorRT. `--help` lists every option; docs/onnx.md explains them.
"""

import sys

from kfpn.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", "onnx", *sys.argv[1:]]))
