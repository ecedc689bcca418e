import keras
import numpy as np
import pytest

from kfpn.modeling.roi_align import RoIAlign, roi_align, roi_levels

SIDES = (16, 8, 4, 2)  # of P2..P5 of a 64 x 64 image


def whole(batch=1, sides=SIDES):
    """The cells that images without padding fill."""
    return [np.full((batch, 2), side, "int32") for side in sides]


def ramp(batch=1, channels=2, sides=SIDES, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, side, side, channels)).astype("float32") for side in sides]


def bilinear(level, y, x):
    """One sample, with the border rule of Detectron's ROIAlign kernel."""
    height, width, _ = level.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(level.shape[-1])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    return (
        (1 - fy) * ((1 - fx) * level[y0, x0] + fx * level[y0, x1])
        + fy * ((1 - fx) * level[y1, x0] + fx * level[y1, x1])
    )  # fmt: skip


def slow_roi_align(features, roi, size, ratio, aligned):
    level = int(np.clip(np.floor(4 + np.log2(np.sqrt((roi[2] - roi[0]) * (roi[3] - roi[1])) / 224)), 2, 5))
    box = np.array(roi, "float64") / 2**level - (0.5 if aligned else 0)
    height, width = box[2] - box[0], box[3] - box[1]
    if not aligned:
        height, width = max(height, 1), max(width, 1)
    out = np.zeros((size, size, features[0].shape[-1]))
    for i in range(size):
        for j in range(size):
            for a in range(ratio):
                for b in range(ratio):
                    y = box[0] + (i + (a + 0.5) / ratio) * height / size
                    x = box[1] + (j + (b + 0.5) / ratio) * width / size
                    out[i, j] += bilinear(features[level - 2], y, x) / ratio**2
    return out


ROIS = [
    [0, 0, 64, 64], [3, 5, 20, 60], [10.5, 7.25, 13, 9], [-20, -9, 30, 30], [50, 40, 90, 100], [0, 0, 400, 500],
    [1, 1, 460, 500], [60, 60, 64, 64],
]  # fmt: skip


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_equals_the_kernel_written_as_loops_inside_across_and_outside_the_border(aligned, ratio):
    features = ramp()
    got = np.array(roi_align(features, np.array([ROIS], "float32"), whole(), 7, ratio, aligned))
    for roi, pooled in zip(ROIS, got[0], strict=True):
        want = slow_roi_align([x[0] for x in features], roi, 7, ratio, aligned)
        np.testing.assert_allclose(pooled, want, atol=2e-5, err_msg=str(roi))


def test_a_constant_map_gives_the_constant_and_a_plane_its_centre():
    plane = [np.tile(np.arange(side, dtype="float32")[None, :, None, None], (1, 1, side, 1)) for side in SIDES]
    # Rows 8..40 of the image are 2..10 of P2; without the shift the middle of the middle bin is row 6.
    got = np.array(roi_align(plane, np.array([[[8, 8, 40, 40]]], "float32"), whole(), 7, 2, aligned=False))
    assert got[0, 0, 3, 3, 0] == pytest.approx(6.0)
    got = np.array(roi_align(plane, np.array([[[8, 8, 40, 40]]], "float32"), whole(), 7, 2, aligned=True))
    assert got[0, 0, 3, 3, 0] == pytest.approx(5.5)


def test_levels_follow_equation_1():
    sides = [1, 56, 111, 112, 223, 224, 447, 448, 896, 5000]
    rois = np.array([[0, 0, side, side] for side in sides], "float32")
    assert np.array(roi_levels(rois)).tolist() == [2, 2, 2, 3, 3, 4, 4, 5, 5, 5]


def test_levels_scale_with_the_canonical_size():
    rois = np.array([[0, 0, side, side] for side in (55, 56, 111, 112, 224)], "float32")
    assert np.array(roi_levels(rois, canonical_size=112.0)).tolist() == [2, 3, 3, 4, 5]


def test_each_image_of_a_batch_is_pooled_from_its_own_maps():
    features = ramp(batch=3)
    rois = np.tile(np.array([ROIS], "float32"), (3, 1, 1))
    together = np.array(roi_align(features, rois, whole(3)))
    for b in range(3):
        alone = np.array(roi_align([x[b : b + 1] for x in features], rois[:1], whole()))
        np.testing.assert_array_equal(together[b : b + 1], alone)


def test_samples_are_clamped_to_the_cells_the_image_fills_not_to_the_padding():
    small = ramp(sides=(12, 6, 3, 2))
    big = [np.pad(x, ((0, 0), (0, 8), (0, 8), (0, 0)), constant_values=99.0) for x in small]
    rois = np.array([[[30, 30, 48, 48], [0, 0, 48, 48]]], "float32")
    cells = whole(sides=(12, 6, 3, 2))
    np.testing.assert_array_equal(np.array(roi_align(big, rois, cells)), np.array(roi_align(small, rois, cells)))


def test_an_empty_roi_gives_finite_values():
    assert np.isfinite(np.array(roi_align(ramp(), np.zeros((1, 1, 4), "float32"), whole()))).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes the gradient with tf.GradientTape")
def test_gradient_spreads_exactly_the_weight_of_each_sample():
    import tensorflow as tf

    features = [tf.constant(x) for x in ramp(channels=1)]

    def pooled_sum(levels):
        return tf.reduce_sum(roi_align(levels, tf.constant([[[8.0, 8, 40, 40]]]), whole()))

    for jit in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.function(pooled_sum, jit_compile=jit)(features)
        gradients = tape.gradient(total, features)
        # 49 cells, each a mean of samples whose weights sum to one; all of it on P2.
        assert float(tf.reduce_sum(gradients[0])) == pytest.approx(49, rel=1e-5)
        assert all(float(tf.reduce_sum(tf.abs(x))) == 0 for x in gradients[1:])


def test_layer_round_trips_its_config():
    layer = RoIAlign(5, 3, False)
    assert RoIAlign.from_config(layer.get_config()).get_config() == layer.get_config()
