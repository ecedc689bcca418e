"""Traces training steps of mirrored replicas on parts of the CPU and prints as JSON what their graphs hold.

python -m tests.training.step_graph REPLICAS CASE...      a case is NETWORK:LAYERS:jit|plain, NETWORK standin or detector
"""

import collections
import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import keras
import tensorflow as tf

from kfpn.losses.training_losses import noise_shapes, training_losses
from kfpn.modeling.submodels import build_submodels
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.optimizer import Optimizer
from kfpn.training.sampler_noise import with_noise
from kfpn.training.step import build_train_step
from tests.training import standin
from tests.training.distribution import same_answer


def deep_submodels(layers: int) -> SimpleNamespace:
    """Returns the stand-in's network with more layers: convolutions with norms that train, and norms that do not."""
    parts = [keras.Input((8, 8, 3))]
    for _ in range(layers):
        frozen = keras.layers.BatchNormalization()
        frozen.trainable = False
        parts += [keras.layers.Conv2D(4, 3, padding="same"), keras.layers.BatchNormalization(), frozen]
    return SimpleNamespace(weights_model=keras.Sequential([*parts, keras.layers.Flatten(), keras.layers.Dense(2)]))


def measure(case: str, replicas: int) -> dict:
    """Returns the types of the step's operations without its arguments, how often the losses were traced, and seconds."""
    network, layers, mode = case.split(":")
    strategy = make_strategy("mirrored", [f"CPU:{i}" for i in range(replicas)], cross_device="reduction_to_one")
    size = 2 * replicas
    losses, shapes = standin.losses, standin.noise_shapes
    config = replace(standin.config(size, norm="frozen_bn", precision="float32"), jit_compile=mode == "jit")
    if network == "detector":
        losses, shapes = training_losses, noise_shapes
        config = replace(same_answer.detector_config("frozen_bn"), batch_size=size, jit_compile=mode == "jit")
    with strategy.scope():
        parts = deep_submodels(int(layers)) if network == "standin" else build_submodels(config.model)
        optimizer = Optimizer(config, parts.weights_model.trainable_variables)
    traced = []

    def counted(*args):
        traced.append(1)
        return losses(*args)

    step = build_train_step(parts, config, optimizer, strategy, counted, shapes)
    side = 64 if network == "detector" else 8
    one = standin.batch(0, size)
    one["images"] = tf.zeros((size, side, side, 3), tf.uint8)
    batches = with_noise(tf.data.Dataset.from_tensors(one), config, shapes)
    batch = next(iter(strategy.experimental_distribute_dataset(batches)))
    begun = time.monotonic()
    graph = step.get_concrete_function(batch).graph
    seconds = time.monotonic() - begun
    kinds = collections.Counter(op.type for op in graph.get_operations() if op.type != "Placeholder")
    return {"kinds": kinds, "traced": len(traced), "seconds": seconds, "variables": len(parts.weights_model.variables)}


if __name__ == "__main__":
    replicas = int(sys.argv[1])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    print(json.dumps({case: measure(case, replicas) for case in sys.argv[2:]}))
