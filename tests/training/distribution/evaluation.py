"""Evaluates a stand-in for a detector on one, two and three replicas, or on the chief of two processes; as a script it prints detections.

python -m tests.training.distribution.evaluation one 2 3         with TF_CONFIG: ... evaluation worker
"""

import json
import sys
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.evaluation.detect import evaluate_source
from kfpn.evaluation.images_at_once import ImagesAtOnce
from kfpn.evaluation.source_pass import SourcePass
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.replica_detector import ReplicaDetector
from kfpn.training.distribution.strategy import make_strategy
from tests.training import made_up, standin

CONFIG = replace(standin.config(batch_size=4), input=InputConfig(64, 64))


def pictures() -> IterableSource:
    """Returns eleven pictures of two sizes, so that both canvases have batches that must be filled up."""
    source = made_up.source(0, 11)
    cut = [replace(record, image=record.image[:40], height=40, boxes=record.boxes.clip(0, 40)) for record in source]
    records = [cut[i] if i % 3 else source[i] for i in range(len(source))]
    return IterableSource(records, source.class_names)


def detector(strategy: tf.distribute.Strategy):
    """Returns a function that makes two detections of an image from its pixels, and its layer."""
    keras.utils.set_random_seed(3)
    with strategy.scope():
        layer = keras.layers.Conv2D(6, 5, dtype="float32")
        layer.build((None, None, None, 3))

    def model(inputs):
        values = tf.reduce_mean(layer(tf.cast(inputs["images"], tf.float32) / 64.0), axis=(1, 2))
        corner = tf.abs(values[:, :4]) * 20.0
        boxes = tf.concat([corner[:, :2], corner[:, :2] + corner[:, 2:] + 1.0], axis=1)
        scores = tf.sort(tf.sigmoid(values[:, 4:6]), direction="DESCENDING")
        ones = tf.ones_like(inputs["image_sizes"][:, 0])
        return {
            "boxes": tf.stack([boxes, boxes + 3.0], axis=1),
            "scores": scores,
            "labels": tf.cast(scores > 0.5, tf.int32),
            "num_detections": 2 * ones,
        }

    return model, layer


def evaluate_on_chief() -> list | None:
    """Evaluates on the chief alone, while the other worker waits."""
    strategy = make_strategy("multi_worker")
    cluster = Cluster(strategy)
    parts = detector(strategy)  # All workers make the variables.
    answers = evaluate(strategy, parts) if cluster.is_chief else None
    cluster.gather(0)
    return answers


def evaluate(strategy: tf.distribute.Strategy, parts: tuple | None = None) -> list:
    """Returns figures and detections before and after the weights changed, as they do at each evaluation."""
    model, layer = parts or detector(strategy)
    replicas = ReplicaDetector(model, strategy)
    answers = []
    for _ in range(2):
        one = SourcePass(pictures(), CONFIG, progress=False, at_once=ImagesAtOnce(2, replicas.replicas))
        figures, detections = evaluate_source(replicas, one, one.source.class_names)
        rows = [{name: np.asarray(value).tolist() for name, value in row.items()} for row in detections]
        answers.append([figures["AP"], figures["AR100"], rows])
        if parts is None:  # The chief must not assign alone what all workers hold.
            layer.kernel.assign(np.asarray(layer.kernel) * 0.5)
    return answers


def main(*kinds: str) -> None:
    results = {}
    for kind in kinds:
        if kind == "one":
            results[kind] = evaluate(make_strategy("one_device", ["CPU:0"]))
        elif kind == "worker":
            results[kind] = evaluate_on_chief()
        else:
            devices = [f"CPU:{i}" for i in range(int(kind))]
            results[kind] = evaluate(make_strategy("mirrored", devices, cross_device="reduction_to_one"))
    print(json.dumps(results))


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
    main(*sys.argv[1:])
