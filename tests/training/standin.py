"""Stands in for a detector with a network of a few weights, and runs it; as a script it compares two replicas with one."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.config.run import Config, OptimizerConfig
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.optimizer import Optimizer
from kfpn.training.step import build_train_step


def config(batch_size=4, norm="frozen_bn", jit_compile=False, precision="float32", steps=6, **optimizer) -> Config:
    base = preset("shapes")
    settings = {"learning_rate": 0.1, "reference_batch": 4, "warmup_steps": 0, "milestones": (), "clip_norm": 0.5}
    return replace(
        base,
        steps=steps,
        batch_size=batch_size,
        jit_compile=jit_compile,
        precision=precision,
        log_every=2,
        eval_every=3,
        checkpoint_every=1,
        model=replace(base.model, norm=norm),
        optimizer=OptimizerConfig(**{**settings, "weight_decay": 0.01, "ema_decay": 0.9, **optimizer}),
    )


def submodels(synchronized=False, batch_norm=True) -> SimpleNamespace:
    keras.utils.set_random_seed(7)
    # A bias in front of a batch norm has a gradient of 0. It would hold nothing but rounding errors.
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, use_bias=not batch_norm, dtype="float32")]
    if batch_norm:
        layers.append(keras.layers.BatchNormalization(synchronized=synchronized, momentum=0.5, dtype="float32"))
    layers += [keras.layers.Flatten(), keras.layers.Dense(2, dtype="float32")]
    return SimpleNamespace(weights_model=keras.Sequential(layers))


def noise_shapes(config, height, width, max_boxes):
    return {"rpn": (height * width,), "roi": (max_boxes,)}


def losses(submodels, config, batch, noise):
    outputs = submodels.weights_model(tf.cast(batch["images"], tf.float32) / 255.0, training=True)
    targets = tf.stack([tf.reduce_mean(noise["rpn"], 1), noise["roi"][:, 0]], axis=1)
    errors = tf.square(outputs - targets)
    return {"rpn_class": errors[:, 0], "roi_box": errors[:, 1]}


def batch(step: int, size: int) -> dict:
    rng = np.random.default_rng(step)
    return {
        "images": rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8),
        "image_sizes": np.full((size, 2), 8, np.int32),
        "gt_boxes": np.zeros((size, 3, 4), np.float32),
        "gt_labels": np.full((size, 3), -1, np.int32),
        "gt_crowd": np.zeros((size, 3), bool),
        "sample_index": step * size + np.arange(size, dtype=np.int64),
        "record_index": np.arange(size, dtype=np.int64),
    }


def batches(config: Config, start: int = 0) -> tf.data.Dataset:
    signature = {
        name: tf.TensorSpec((config.batch_size, *[None] * (value.ndim - 1)), value.dtype)
        for name, value in batch(0, config.batch_size).items()
    }

    def rows():
        for step in range(start, 1000):
            yield batch(step, config.batch_size)

    return tf.data.Dataset.from_generator(rows, output_signature=signature)


def run(config: Config, strategy: tf.distribute.Strategy, synchronized=False, batch_norm=True, losses=losses):
    """Returns (state after `config.steps` steps, metrics of each step)."""
    with strategy.scope():
        parts = submodels(synchronized, batch_norm)
        optimizer = Optimizer(config, parts.weights_model.trainable_variables)
    step = build_train_step(parts, config, optimizer, strategy, losses, noise_shapes)
    iterator = iter(strategy.experimental_distribute_dataset(batches(config)))
    rows = [{k: float(v) for k, v in step(next(iterator)).items() if k != "stop"} for _ in range(config.steps)]
    state = [v.numpy() for v in [*parts.weights_model.variables, *optimizer.variables]]
    return state, rows


def overflowing(submodels, config, batch, noise):
    """Returns finite losses. The scaled gradient of sample 0 is infinite, so it is infinite on one replica only."""
    values = losses(submodels, config, batch, noise)
    factor = tf.where(batch["sample_index"] == 0, 3e38, 0.0)
    return {name: value + factor * (value - tf.stop_gradient(value)) for name, value in values.items()}


def not_finite(submodels, config, batch, noise):
    """Returns losses that are NaN for sample 4, which is in the second step and on one replica only."""
    values = losses(submodels, config, batch, noise)
    return {name: value * tf.where(batch["sample_index"] == 4, np.nan, 1.0) for name, value in values.items()}


def compare_replicas(**options) -> dict:
    """Returns the largest differences between a run on two replicas and one on a single replica."""
    settings = config(steps=3, **{key: options[key] for key in options if key in ("norm", "jit_compile", "precision")})
    pair = make_strategy("mirrored", ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    rest = {key: options[key] for key in options if key in ("synchronized", "batch_norm", "losses")}
    one, rows_one = run(settings, make_strategy("one_device"), **rest)
    two, rows_two = run(settings, pair, **rest)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))
    rows = max(
        abs(a[k] - b[k]) / max(1.0, abs(a[k]))
        for a, b in zip(rows_one, rows_two, strict=True)
        for k in a
        if np.isfinite(a[k])
    )
    finite = all(bool(np.isfinite(value).all()) for value in two)
    skipped = [row["skipped"] for row in rows_two]
    return {
        "state": difference,
        "rows": float(rows),
        "finite": finite,
        "scale": float(two[-2].max()),
        "skipped": skipped,
    }


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    CASES = {
        "jit": {"batch_norm": False, "jit_compile": True},
        "sync_bn": {"synchronized": True, "norm": "sync_bn", "jit_compile": True},
        "nan": {"synchronized": True, "norm": "sync_bn", "losses": not_finite},
        "overflow": {"batch_norm": False, "precision": "mixed_float16", "losses": overflowing},
    }
    print(json.dumps({name: compare_replicas(**CASES[name]) for name in sys.argv[1:]}))
