import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.modeling.pooling import RoIAlign
from kfpn.ops import roi_align_adaptive
from kfpn.ops.roi_align import RoIAlignRule, roi_align, roi_levels, stored

SIDES = (16, 8, 4, 2)  # of P2..P5 of a 64 x 64 image


def whole(batch=1, sides=SIDES):
    """Returns the cells of each level that an image without padding fills: all of them."""
    return [np.full((batch, 2), side, "int32") for side in sides]


def random_levels(batch=1, channels=2, sides=SIDES, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, side, side, channels)).astype("float32") for side in sides]


def outside(at, side):
    """Tells whether a sample counts as zero, by the rule for borders of Detectron's ROIAlign kernel."""
    return at < -1 or at > side


def bilinear(level, y, x):
    """Returns the value at one sample that is not `outside`."""
    height, width, _ = level.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    return (
        (1 - fy) * ((1 - fx) * level[y0, x0] + fx * level[y0, x1])
        + fy * ((1 - fx) * level[y1, x0] + fx * level[y1, x1])
    )  # fmt: skip


def slow_roi_align(features, roi, size, ratio, aligned):
    """Computes RoIAlign by the loops of torchvision's kernel. Ratio 0 samples adaptively."""
    area = max(roi[2] - roi[0], 0) * max(roi[3] - roi[1], 0)
    level = int(np.clip(np.floor(4 + np.log2(np.sqrt(area) / 224 + 1e-8)), 2, 5))
    box = np.array(roi, "float64") / 2**level - (0.5 if aligned else 0)
    height, width = box[2] - box[0], box[3] - box[1]
    if not aligned:
        height, width = max(height, 1), max(width, 1)
    rows, columns = (ratio or max(int(np.ceil(side / size)), 0) for side in (height, width))
    values = features[level - 2]
    out = np.zeros((size, size, values.shape[-1]))
    for i, a in itertools.product(range(size), range(rows)):
        y = box[0] + (i + (a + 0.5) / rows) * height / size
        if outside(y, values.shape[0]):
            continue
        for j, b in itertools.product(range(size), range(columns)):
            x = box[1] + (j + (b + 0.5) / columns) * width / size
            if not outside(x, values.shape[1]):
                out[i, j] += bilinear(values, y, x) / (rows * columns)
    return out


ROIS = [
    [0, 0, 64, 64], [3, 5, 20, 60], [10.5, 7.25, 13, 9], [-20, -9, 30, 30], [50, 40, 90, 100], [0, 0, 400, 500],
    [1, 1, 460, 500], [60, 60, 64, 64],
]  # fmt: skip


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_roi_align_equals_the_kernel_written_as_loops_inside_across_and_outside_the_border(aligned, ratio):
    features = random_levels()
    got = np.array(roi_align(features, np.array([ROIS], "float32"), whole(), RoIAlignRule(7, ratio, aligned)))
    for roi, pooled in zip(ROIS, got[0], strict=True):
        want = slow_roi_align([x[0] for x in features], roi, 7, ratio, aligned)
        np.testing.assert_allclose(pooled, want, atol=2e-5, err_msg=str(roi))


def test_a_bin_of_a_plane_has_the_value_at_its_centre():
    plane = [np.tile(np.arange(side, dtype="float32")[None, :, None, None], (1, 1, side, 1)) for side in SIDES]
    # Rows 8 to 40 of the image are rows 2 to 10 of P2. Without `aligned` the centre of the middle bin is row 6; with it,
    # half a cell less.
    got = np.array(
        roi_align(plane, np.array([[[8, 8, 40, 40]]], "float32"), whole(), RoIAlignRule(7, 2, aligned=False))
    )
    assert got[0, 0, 3, 3, 0] == pytest.approx(6.0)
    got = np.array(roi_align(plane, np.array([[[8, 8, 40, 40]]], "float32"), whole(), RoIAlignRule(7, 2, aligned=True)))
    assert got[0, 0, 3, 3, 0] == pytest.approx(5.5)


def test_levels_follow_equation_1():
    sides = [1, 56, 111, 112, 223, 224, 447, 448, 896, 5000]
    rois = np.array([[0, 0, side, side] for side in sides], "float32")
    assert np.array(roi_levels(rois)).tolist() == [2, 2, 2, 3, 3, 4, 4, 5, 5, 5]


@pytest.mark.parametrize("canonical", [75.0, 112.0, 224.0, 333.0])
def test_a_square_of_exactly_the_canonical_size_has_its_own_level_with_and_without_xla(canonical):
    tf = pytest.importorskip("tensorflow")
    sides = np.array([[factor * canonical] for factor in (0.5, 1.0, 2.0)], "float32")
    rois = np.concatenate([0 * sides, 0 * sides, sides, sides], axis=1)
    smaller = np.concatenate([0 * sides, 0 * sides, sides, 0.99999 * sides], axis=1)
    levels = tf.function(lambda x: roi_levels(x, canonical), jit_compile=True)
    for form in (levels, lambda x: roi_levels(x, canonical)):
        assert np.array(form(tf.constant(rois))).tolist() == [3, 4, 5]
        assert np.array(form(tf.constant(smaller))).tolist() == [2, 3, 4]


def test_levels_scale_with_the_canonical_size():
    rois = np.array([[0, 0, side, side] for side in (55, 56, 111, 112, 224)], "float32")
    assert np.array(roi_levels(rois, canonical_size=112.0)).tolist() == [2, 3, 3, 4, 5]


def test_each_image_of_a_batch_is_pooled_from_its_own_maps():
    features = random_levels(batch=3)
    rois = np.tile(np.array([ROIS], "float32"), (3, 1, 1))
    together = np.array(roi_align(features, rois, whole(3)))
    for b in range(3):
        alone = np.array(roi_align([x[b : b + 1] for x in features], rois[:1], whole()))
        np.testing.assert_array_equal(together[b : b + 1], alone)


def test_samples_are_clamped_to_the_cells_that_the_image_fills_and_do_not_read_padding():
    small = random_levels(sides=(12, 6, 3, 2))
    big = [np.pad(x, ((0, 0), (0, 8), (0, 8), (0, 0)), constant_values=99.0) for x in small]
    rois = np.array([[[30, 30, 48, 48], [0, 0, 48, 48]]], "float32")
    cells = whole(sides=(12, 6, 3, 2))
    np.testing.assert_array_equal(np.array(roi_align(big, rois, cells)), np.array(roi_align(small, rois, cells)))


def test_an_empty_roi_gives_finite_values():
    assert np.isfinite(np.array(roi_align(random_levels(), np.zeros((1, 1, 4), "float32"), whole()))).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes the gradient with tf.GradientTape")
def test_the_gradients_of_the_features_add_up_to_one_for_each_pooled_cell():
    import tensorflow as tf

    features = [tf.constant(x) for x in random_levels(channels=1)]

    def pooled_sum(levels):
        return tf.reduce_sum(roi_align(levels, tf.constant([[[8.0, 8, 40, 40]]]), whole()))

    for jit in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.function(pooled_sum, jit_compile=jit)(features)
        gradients = tape.gradient(total, features)
        # There are 49 cells. Each is a mean of samples whose weights add up to one, and all samples lie on P2.
        assert float(tf.reduce_sum(gradients[0])) == pytest.approx(49, rel=1e-5)
        assert all(float(tf.reduce_sum(tf.abs(x))) == 0 for x in gradients[1:])


# RoIs that are long and thin, tiny, a whole number of bins long (14 cells of P2), partly or wholly outside the image, or far
# larger than the image.
ADAPTIVE_ROIS = [
    *ROIS, [2, 30, 60, 31], [30.5, 1, 32, 63], [20, 20, 20.5, 20.25], [4, 4, 60, 60], [4, 0, 60, 28], [-30, 5, -10, 60],
    [70, 70, 120, 130], [-300, -200, 400, 300], [-1e4, -2e4, 1e4, 3e4], [10, -1000, 12, 1000], [0, 0, 1e4, 64],
    [10, 10, 10, 10], [30, 30, 10, 40],
]  # fmt: skip


@pytest.mark.parametrize("aligned", [True, False])
def test_adaptive_sampling_equals_the_kernel_written_as_loops(aligned):
    tf = pytest.importorskip("tensorflow")
    features = random_levels()
    rois = np.array([ADAPTIVE_ROIS], "float32")
    want = [slow_roi_align([x[0] for x in features], roi, 7, 0, aligned) for roi in ADAPTIVE_ROIS]
    compiled = tf.function(lambda *x: roi_align(x[:4], x[4], whole(), RoIAlignRule(7, 0, aligned)), jit_compile=True)
    for got in (roi_align(features, rois, whole(), RoIAlignRule(7, 0, aligned)), compiled(*features, rois)):
        for roi, pooled, expected in zip(ADAPTIVE_ROIS, np.array(got)[0], want, strict=True):
            np.testing.assert_allclose(pooled, expected, atol=1e-4, err_msg=str(roi))


def test_adaptive_sampling_of_a_roi_does_not_depend_on_the_others():
    features, rng = random_levels(batch=2), np.random.default_rng(0)
    start = rng.uniform(-10, 60, (2, 70, 2))
    rois = np.concatenate([start, start + rng.uniform(0, 300, (2, 70, 2)) ** 2 / 300], axis=2).astype("float32")
    together = np.array(roi_align(features, rois, whole(2), RoIAlignRule(7, 0)))
    for b, r in ((0, 0), (0, 69), (1, 3), (1, 42)):
        alone = np.array(
            roi_align([x[b : b + 1] for x in features], rois[b : b + 1, r : r + 1], whole(), RoIAlignRule(7, 0))
        )
        np.testing.assert_array_equal(together[b, r], alone[0, 0])


def test_adaptive_sampling_of_empty_and_unbounded_rois_gives_zeros():
    nan, inf = np.nan, np.inf
    rois = [[5, 5, 5, 5], [9, 9, 5, 5], [nan, 0, 9, 9], [0, 0, 9, nan], [-inf, 0, inf, 9], [0, 0, inf, inf]]
    assert not np.array(roi_align(random_levels(), np.array([rois], "float32"), whole(), RoIAlignRule(7, 0))).any()
    for aligned in (True, False):
        got = np.array(
            roi_align(random_levels(), np.array([rois[2:]], "float32"), whole(), RoIAlignRule(7, 0, aligned))
        )
        assert not got.any()


def test_adaptive_sampling_of_huge_rois_ends_with_finite_values():
    sides = [1e6, 1e12, 1e30]
    rois = [[-side, -side, side, side] for side in sides] + [[3, -side, 3.5, side] for side in sides]
    assert np.isfinite(
        np.array(roi_align(random_levels(), np.array([rois], "float32"), whole(), RoIAlignRule(7, 0)))
    ).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes the gradient with tf.GradientTape")
@pytest.mark.parametrize(("jit", "adds_rows"), [(False, True), (True, True), (False, False), (True, False)])
def test_adaptive_gradient_is_the_transpose_of_the_kernel_written_as_loops(monkeypatch, jit, adds_rows):
    import tensorflow as tf

    # Keras 3.12 and 3.13 can't add rows to a table at once.
    monkeypatch.setattr(roi_align_adaptive, "ADDS_ROWS", adds_rows and roi_align_adaptive.ADDS_ROWS)
    # Pooling is linear in the features. So for upstream weights u and any features v: <gradient for u, v> = <u, pooled v>.
    rng, features = np.random.default_rng(1), [tf.constant(x) for x in random_levels(channels=1)]
    rois = [roi for roi in ADAPTIVE_ROIS if max(roi) < 1000]
    weights = rng.normal(size=(1, len(rois), 7, 7, 1)).astype("float32")

    @tf.function(jit_compile=jit)
    def gradient(levels):
        with tf.GradientTape() as tape:
            tape.watch(levels)
            total = tf.reduce_sum(roi_align(levels, tf.constant([rois]), whole(), RoIAlignRule(7, 0)) * weights)
        return tape.gradient(total, levels)

    gradients = gradient(features)
    for seed in range(2):
        other = random_levels(channels=1, seed=seed + 5)
        pooled = [slow_roi_align([x[0] for x in other], roi, 7, 0, True) for roi in rois]
        want = float(np.sum(weights[0] * np.stack(pooled)))
        got = sum(float(np.sum(np.array(g) * v)) for g, v in zip(gradients, other, strict=True))
        assert got == pytest.approx(want, abs=1e-3)


def test_the_layer_is_the_same_after_its_config():
    layer = RoIAlign(5, 0, False)
    assert RoIAlign.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_stored_rois_and_their_gradients_are_the_same(count):
    pooled = tf.random.stateless_normal((count, 3, 3, 2), (0, 1))
    with tf.GradientTape() as tape:
        tape.watch(pooled)
        copied = stored(pooled)
        loss = tf.reduce_sum(copied**2)
    np.testing.assert_array_equal(copied, pooled)
    np.testing.assert_array_equal(tape.gradient(loss, pooled), 2 * pooled)
