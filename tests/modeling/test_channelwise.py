"""Tests convolutions of one channel a group: the same numbers as Keras' own, in backbones of files and of names."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.modeling.backbones.applications import build_application
from kfpn.modeling.backbones.channelwise import ChannelwiseConv2D, as_channelwise, copied, has_channelwise
from kfpn.modeling.backbones.given_backbone import read_keras_file
from tests.modeling.keras_models import convolutions


def grouped_model(**options):
    inputs = keras.Input((None, None, 6))
    layer = keras.layers.Conv2D(6, 3, groups=6, bias_initializer="normal", **options)
    return keras.Model(inputs, layer(inputs))


def value_and_gradients(model, x):
    with tf.GradientTape() as tape:
        value = model(x)
        loss = tf.reduce_sum(value**2)
    return [np.array(value), *map(np.array, tape.gradient(loss, model.trainable_variables))]


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same"},
        {"padding": "valid", "use_bias": False, "activation": "relu"},
        {"padding": "same", "strides": 2},
        {"padding": "same", "dilation_rate": 2},
    ],
    ids=["same", "valid", "strides", "dilation"],
)
def test_values_and_gradients_are_those_of_a_convolution_in_groups(options):
    model = grouped_model(**options)
    copy = copied(model, as_channelwise)
    assert isinstance(copy.layers[-1], ChannelwiseConv2D)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 9, 8, 6)), tf.float32)
    for expected, got in zip(value_and_gradients(model, x), value_and_gradients(copy, x), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_file_with_such_layers_is_read_with_the_same_maps_and_is_saved_again(tmp_path):
    model = convolutions(groups=8)
    model.save(tmp_path / "mine.keras")
    read = read_keras_file(str(tmp_path / "mine.keras"))
    assert isinstance(read.get_layer("groups"), ChannelwiseConv2D)
    x = np.random.default_rng(0).normal(size=(1, 32, 64, 3)).astype("float32")
    expected = model(x)
    np.testing.assert_allclose(read(x), expected, atol=1e-6)
    read.save(tmp_path / "again.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "again.keras")(x), expected, atol=1e-6)


def test_convolutions_with_several_channels_a_group_stay(tmp_path):
    model = convolutions(groups=4)
    assert not has_channelwise(model)
    model.save(tmp_path / "mine.keras")
    assert type(read_keras_file(str(tmp_path / "mine.keras")).get_layer("groups")) is keras.layers.Conv2D


def test_a_layer_that_is_used_twice_stays_one_layer():
    inputs = keras.Input((None, None, 6))
    layer = keras.layers.Conv2D(6, 3, groups=6, padding="same", name="twice")
    model = keras.Model(inputs, layer(layer(inputs)))
    copy = copied(model, as_channelwise)
    assert len(copy.weights) == 2
    x = np.random.default_rng(0).normal(size=(1, 9, 8, 6)).astype("float32")
    np.testing.assert_allclose(copy(x), model(x), atol=1e-5)


def test_convnext_has_them():
    layers = build_application("keras:convnext_tiny").layers
    assert sum(isinstance(layer, ChannelwiseConv2D) for layer in layers) == 18
