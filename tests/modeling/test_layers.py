import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kfpn.modeling.layers import (
    MaskedBatchNormalization,
    MaskedGroupNormalization,
    PointwiseConv2D,
    RoIDense,
    SharedLayers,
)


def padded(height=5, width=7, channels=32, seed=0):
    """Returns features x, a larger canvas with x and other numbers around it, and the mask of the cells of x."""
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 3.0, (1, height, width, channels)).astype("float32")
    canvas = rng.normal(50.0, 9.0, (1, height + 3, width + 4, channels)).astype("float32")
    canvas[:, :height, :width] = x
    valid = np.zeros((*canvas.shape[:3], 1), "float32")
    valid[:, :height, :width] = 1
    return x, canvas, valid


@pytest.mark.parametrize("strides", [1, 2])
def test_pointwise_convolution_equals_conv2d(strides):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 5)).astype("float32")
    ours, theirs = PointwiseConv2D(3, strides), keras.layers.Conv2D(3, 1, strides)
    want = theirs(x)
    ours.build(x.shape)
    ours.set_weights([theirs.get_weights()[0], np.array([1.0, 2.0, 3.0])])
    theirs.set_weights(ours.get_weights())
    want = theirs(x)
    np.testing.assert_allclose(np.array(ours(x)), np.array(want), atol=1e-5)
    assert ours.compute_output_spec(keras.KerasTensor(x.shape)).shape == want.shape


def test_a_pointwise_convolution_is_the_same_after_its_config():
    layer = PointwiseConv2D(3, 2, use_bias=False, name="a")
    again = PointwiseConv2D.from_config(layer.get_config())
    assert (again.filters, again.strides, again.use_bias, again.name) == (3, (2, 2), False, "a")


def test_dense_over_rois_is_the_same_in_training_and_at_inference_and_equals_dense():
    x = np.random.default_rng(0).normal(size=(6, 3, 3, 5)).astype("float32")
    layer, plain = RoIDense(4), keras.layers.Dense(4)
    plain.build((6, 45))
    layer.build(x.shape)
    layer.set_weights([plain.get_weights()[0], np.arange(4.0)])
    plain.set_weights(layer.get_weights())
    want = np.array(plain(x.reshape(6, 45)))
    np.testing.assert_allclose(np.array(layer(x, training=True)), want, atol=1e-5)
    np.testing.assert_allclose(np.array(layer(x, training=False)), want, atol=1e-5)


def test_group_norm_does_not_count_padding():
    x, canvas, valid = padded()
    layer = MaskedGroupNormalization(groups=8)
    want = np.array(layer(x))
    np.testing.assert_allclose(np.array(layer(canvas, valid=valid))[:, :5, :7], want, atol=1e-4)
    assert np.abs(np.array(layer(canvas))[:, :5, :7] - want).max() > 0.1


@pytest.mark.parametrize("synchronized", [False, True])
def test_batch_norm_does_not_count_padding(synchronized):
    x, canvas, valid = padded()
    alone, masked = (MaskedBatchNormalization(momentum=0.5, synchronized=s) for s in (False, synchronized))
    want = np.array(alone(x, training=True))
    got = np.array(masked(canvas, valid=valid, training=True))
    np.testing.assert_allclose(got[:, :5, :7], want, atol=1e-3)
    for ours, theirs in zip(masked.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_synchronized_variance_keeps_its_digits_where_the_mean_is_far_larger():
    x = (1000 + np.random.default_rng(0).normal(0, 0.1, (2, 8, 8, 3))).astype("float32")
    layer = MaskedBatchNormalization(momentum=0.0, synchronized=True)
    layer(x, valid=np.ones((2, 8, 8, 1), "float32"), training=True)
    want = x.astype("float64").var((0, 1, 2))
    np.testing.assert_allclose(np.array(layer.moving_variance), want, rtol=1e-2)


def test_a_frozen_batch_norm_does_not_use_the_statistics_of_the_batch():
    _, canvas, valid = padded()
    layer = MaskedBatchNormalization(synchronized=True)
    layer.trainable = False
    np.testing.assert_allclose(np.array(layer(canvas, valid=valid, training=True)), canvas, rtol=1e-2)


TWO_REPLICAS = """
import numpy as np, tensorflow as tf
from kfpn.modeling.layers import MaskedBatchNormalization
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
rng = np.random.default_rng(0)
x = rng.normal(2, 3, (4, 6, 6, 3)).astype("float32")
valid = np.ones((4, 6, 6, 1), "float32")
valid[0, 2:], valid[3, :, 4:] = 0, 0
with strategy.scope():
    layer = MaskedBatchNormalization(momentum=0.5, synchronized=True)
    layer.build(x.shape)
data = tf.data.Dataset.from_tensors((x, valid)).unbatch().batch(4)
def cost(y):
    return tf.reduce_sum(tf.square(y) * y)
@tf.function
def step(x, v):
    def replica(x, v):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, valid=v, training=True)
            loss = cost(y * v)
        return (y, *tape.gradient(loss, (x, layer.gamma.value)))
    return strategy.run(replica, (x, v))
parts = step(*next(iter(strategy.experimental_distribute_dataset(data))))
got, by_x, by_gamma = ([p.numpy() for p in strategy.experimental_local_results(part)] for part in parts)
got, by_x = np.concatenate(got), np.concatenate(by_x)
real = x[valid[..., 0] > 0]
np.testing.assert_allclose(layer.moving_mean.numpy(), real.mean(0) / 2, rtol=1e-4)
np.testing.assert_allclose(layer.moving_variance.numpy(), real.var(0) / 2 + 0.5, rtol=1e-4)
want = (x - real.mean(0)) / np.sqrt(real.var(0) + 1e-3)
np.testing.assert_allclose(got[valid[..., 0] > 0], want[valid[..., 0] > 0], atol=1e-4)
with tf.GradientTape() as tape:
    real, gamma = tf.constant(real), tf.ones(3)
    tape.watch((real, gamma))
    mean = tf.reduce_mean(real, 0)
    normal = (real - mean) / tf.sqrt(tf.reduce_mean(tf.square(real - mean), 0) + 1e-3)
    loss = cost(normal * gamma)
want_x, want_gamma = tape.gradient(loss, (real, gamma))
np.testing.assert_allclose(by_x[valid[..., 0] > 0], want_x, atol=1e-4)
np.testing.assert_array_equal(by_x[valid[..., 0] == 0], 0)
np.testing.assert_allclose(sum(by_gamma), want_gamma, rtol=1e-4, atol=1e-4)
print("equal")
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs tf.distribute")
def test_synchronized_statistics_and_gradients_are_those_of_all_replicas_without_padding():
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_a_name_has_one_layer_and_frozen_layers_do_not_train():
    layers = SharedLayers(frozen=lambda name: name == "b")
    first = layers("a", keras.layers.Dense, units=2)
    assert layers("a", keras.layers.Dense, units=9) is first
    assert first.trainable
    assert not layers("b", keras.layers.Dense, units=2).trainable
