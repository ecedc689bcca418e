import numpy as np
import pytest
import tensorflow as tf

from kfpn.data.philox import integer_below, uniform

SEEDS = [(0, 0), (3 ^ (0x617567 << 32), 2**40 + 7), (2**31 - 1, -1), (-5, 123)]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_numbers_are_tensorflows_bit_for_bit(seeds, dtype):
    for shape in ((), (1,), (7,), (3, 5), (1001,)):
        expected = tf.random.stateless_uniform(shape, seeds, dtype=dtype, alg="philox").numpy()
        got = uniform(shape, seeds, dtype)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("seeds", SEEDS)
def test_whole_numbers_are_tensorflows(seeds):
    for limit in (1, 6, 1000):
        expected = tf.random.stateless_uniform((), seeds, maxval=limit, dtype=tf.int32, alg="philox")
        assert integer_below(seeds, limit) == int(expected)
