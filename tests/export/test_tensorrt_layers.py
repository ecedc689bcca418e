"""Tests that the layers of other formulations have the numbers of the layers that they stand for."""

import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.tensorrt_layers import AsConvolution, GroupNormByProducts
from kfpn.modeling.heads.mask import Deconvolution
from kfpn.modeling.layers import MaskedGroupNormalization, PointwiseConv2D

MAPS = np.random.default_rng(0).normal(1.0, 2.0, (3, 4, 6, 16)).astype("float32")


def convolves_nothing():
    """Tells whether TensorFlow's convolution of no images has the right shape: with oneDNN (2.21) it has that of its input."""
    return tf.nn.conv2d(MAPS[:0], np.ones((1, 1, 16, 5), "float32"), 1, "VALID").shape == (0, 4, 6, 5)


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("mixed_float16", 0.02)])
@pytest.mark.parametrize(
    ("make", "formulation"),
    [
        (lambda dtype: PointwiseConv2D(5, strides=2, bias_initializer="normal", dtype=dtype), AsConvolution),
        (lambda dtype: Deconvolution(5, bias_initializer="normal", dtype=dtype), AsConvolution),
        (lambda dtype: MaskedGroupNormalization(4, beta_initializer="normal", dtype=dtype), GroupNormByProducts),
    ],
    ids=["1x1", "deconvolution", "group norm"],
)
def test_a_formulation_has_the_numbers_and_the_dtype_of_its_layer(make, formulation, dtype, limit):
    layer = make(dtype)
    layer.build(MAPS.shape)
    if isinstance(layer, MaskedGroupNormalization):
        layer.gamma.assign(np.linspace(0.5, 2.0, 16))
    expected = layer(MAPS)
    outputs = formulation(layer)(MAPS)
    assert (outputs.dtype, outputs.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(np.array(outputs, "float32"), np.array(expected, "float32"), atol=limit)
    if formulation is not AsConvolution or convolves_nothing():
        assert formulation(layer)(MAPS[:0]).shape == (0, *expected.shape[1:])
