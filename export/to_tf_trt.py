"""Converts a trained detector with TF-TRT: `python export/to_tf_trt.py runs/shapes served/trt/1 --build`.

The same as `kfpn export tf_trt`. It prints what was written, or what is missing on this machine, a sentence each.
With `--report` it prints instead what TF-TRT would convert: the share of nodes and FLOPs, the segments, and what splits
them. The report needs TensorFlow 2.17, but neither TensorRT nor a GPU. `--help` lists every option; docs/tf_trt.md
explains them.
"""

import sys

from kfpn.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", "tf_trt", *sys.argv[1:]]))
