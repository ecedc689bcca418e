import numpy as np
import pytest
import tensorflow as tf

from kfpn.kernels.sparse_roi_align import SparseRoIAlign
from kfpn.modeling.pooling import RoIAlign


def pooled(rois, sizes, **options):
    """Returns what `RoIAlign` and `SparseRoIAlign` pool from random levels of images padded to 96 x 128 pixels."""
    rng = np.random.default_rng(0)
    sizes = np.array(sizes, np.int32)
    dtype = options.get("dtype", "float32")
    levels = {f"P{n}": tf.cast(rng.normal(size=(len(sizes), 96 // 2**n, 128 // 2**n, 8)), dtype) for n in (2, 3, 4, 5)}
    rois = tf.constant(rois, tf.float32)
    return [
        tf.function(layer(canonical_size=60.0, **options), autograph=False)(levels, rois, tf.constant(sizes))
        for layer in (RoIAlign, SparseRoIAlign)
    ]


def boxes(sizes, count=40):
    """Returns boxes (B, count, 4) of all levels. Some are thin or lie at the border, and the last two are empty."""
    rng = np.random.default_rng(1)
    limits = np.tile(sizes, 2)[:, None]
    center = rng.uniform(0.0, 1.0, (len(sizes), count, 2)) * limits[..., :2]
    side = np.exp(rng.uniform(np.log(0.01), np.log(200.0), (len(sizes), count, 2)))
    corners = np.clip(np.concatenate([center - side / 2, center + side / 2], axis=-1), 0, limits)
    corners[:, -2:] = 0.0
    return corners


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
def test_the_matrix_product_pools_the_features_that_the_gathers_pool(aligned, sampling_ratio):
    sizes = [(96, 128), (71, 90), (50, 128)]
    expected, got = pooled(boxes(sizes), sizes, aligned=aligned, sampling_ratio=sampling_ratio)
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_samples_beyond_an_image_add_nothing_and_padding_is_never_read():
    # Without `aligned` a RoI counts as at least one cell large. So these RoIs at the border reach beyond it.
    at_border = [[[70.9, 89.9, 71, 90], [71, 90, 71, 90], [0, 89, 71, 90], [-30, -40, -20, -10]]]
    expected, got = pooled(at_border, [(71, 90)], aligned=False)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_array_equal(got[0, 3], 0.0)


def test_features_of_half_precision_are_pooled_in_half_precision():
    sizes = [(96, 128)]
    expected, got = pooled(boxes(sizes), sizes, dtype="bfloat16")
    assert got.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(got, tf.float32), tf.cast(expected, tf.float32), atol=0.05)


def test_a_box_of_nan_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(SparseRoIAlign())(
            {f"P{n}": tf.zeros((1, 64 // 2**n, 64 // 2**n, 4)) for n in (2, 3, 4, 5)},
            tf.fill((1, 3, 4), np.nan),
            tf.constant([[64, 64]]),
        )


def test_the_sparse_layer_takes_the_settings_of_roi_align():
    layer = RoIAlign(size=5, sampling_ratio=3, aligned=False, canonical_size=100.0, name="align")
    assert SparseRoIAlign.from_config(layer.get_config()).get_config() == layer.get_config()
