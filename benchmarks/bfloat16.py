"""Measures the AP of a run's SavedModel forms in float32 and in bfloat16 on its validation data, and prints the table of docs/bfloat16.md.

    python benchmarks/bfloat16.py runs/shapes
    python benchmarks/bfloat16.py runs/bccd --images 50     # evenly spread

It runs the network that `kfpn export saved_model` writes, on images resized as `kfpn evaluate` resizes them.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfpn.export.onnx.int8 import evaluate_onnx, validation_source
from kfpn.export.saved_model.served_detector import ServedDetector
from kfpn.export.stored_form import policy_of_export, stored_form
from kfpn.export.trained import open_trained
from kfpn.runs.precision import dtype_policy


def served_network(trained, precision):
    """Returns the function of images (B, H, W, 3) float32 that gives the detections of a SavedModel, in their pixels."""
    detector = ServedDetector(stored_form(trained, precision))
    run = tf.function(detector, autograph=False)

    def detect(images):
        sizes = tf.constant([images.shape[1:3]] * len(images), tf.int32)
        with dtype_policy(policy_of_export(trained.config.model, precision)):
            return {name: np.array(value) for name, value in run(tf.constant(images, tf.float32), sizes).items()}

    return detect


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--images", type=int)
    options = parser.parse_args()
    trained = open_trained(options.workdir)
    source = validation_source(trained.config)
    rows = np.linspace(0, len(source) - 1, min(options.images or len(source), len(source))).round().astype(int).tolist()
    print(f"{source.name}: {len(rows)} images\n\n| precision | AP | AP50 | AP75 |\n|---|---|---|---|")
    for precision in ("float32", "bfloat16"):
        detect = served_network(trained, precision)
        load = lambda _path, detect=detect: detect  # noqa: E731
        figures = evaluate_onnx(Path(precision), source, rows, trained.config, trained.class_names, load)
        print(f"| {precision} | {figures['AP']:.4f} | {figures['AP50']:.4f} | {figures['AP75']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
