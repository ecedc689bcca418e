"""Converts a trained detector with TF-TRT: `python export/to_tf_trt.py --workdir W --output DIR --precision FP16 --build`.

The same as `kfpn export tf_trt`. With `--report` it says instead what TF-TRT would convert: the share of nodes and FLOPs, the
segments and what splits them; that needs TensorFlow 2.17 but neither TensorRT nor a GPU. It prints what is missing here,
a sentence each, or what it wrote. `--help` lists every option; docs/tf_trt.md explains them.
"""

import sys

from kfpn.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", "tf_trt", *sys.argv[1:]]))
