import keras
import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.training.given_batches import NEEDED, checked_batches, require_entries, require_values
from tests.training.small_detector import LOSSES, SAMPLING, batch, detector

NAN = float("nan")


def given(**changes):
    one = batch(0, noise=False)
    return {**one, **{name: change(one[name]) for name, change in changes.items()}}


def pixels(value):
    return lambda images: np.full(images.shape, value, "float32")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gt_labels", lambda v: v * 0 + 3, r"gt_labels must lie in 0\.\.2, the classes of the detector, .* got 3: count"),
        ("gt_labels", lambda v: v * 0 - 5, r"gt_labels must lie in 0\.\.2, .* got -5"),
        ("gt_boxes", lambda v: v * NAN, r"gt_boxes must be finite \(y1, x1, y2, x2\) .* got \[nan, nan"),
        ("gt_boxes", lambda v: v[..., ::-1], "gt_boxes must be finite .* with y1 <= y2 and x1 <= x2, got"),
        ("image_sizes", lambda v: v[:, ::-1], r"image_sizes must be \(height, width\) in 1\.\.64 and 1\.\.96, .* got \[96, 64\]"),
        ("image_sizes", lambda v: v * 0, r"image_sizes must be \(height, width\) .* got \[0, 0\]"),
        ("images", pixels(NAN), "images must be finite, got nan"),
        ("gt_boxes", lambda v: v[:, :2], r"gt_labels must have the shape \(B, G\), got \(2, 3\) with B 2, G 2"),
    ],
)  # fmt: skip
def test_values_that_can_not_be_are_refused_on_the_host(name, change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        require_values(given(**{name: change}), 3)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images", lambda v: v[..., :1], r"images must have the shape \(B, H, W, 3\), got \(2, 64, 96, 1\)"),
        ("images", lambda v: v[0], r"images must have the shape \(B, H, W, 3\), got \(64, 96, 3\)"),
        ("gt_boxes", lambda v: v[:1], r"gt_boxes must have the shape \(B, G, 4\), got \(1, 3, 4\) with B 2"),
        ("gt_labels", lambda v: v[..., None], r"gt_labels must have the shape \(B, G\), got \(2, 3, 1\)"),
        ("image_sizes", lambda v: v[:, [0, 1, 1]], r"image_sizes must have the shape \(B, 2\), got \(2, 3\)"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused_when_the_step_is_built(name, change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        require_entries(given(**{name: change}), NEEDED)


def test_rows_without_a_box_and_images_that_fill_up_may_hold_anything():
    one = given(gt_labels=lambda v: v * 0 - 1, gt_boxes=lambda v: v * NAN)
    require_values({**one, "record_index": np.array([0, -1]), "image_sizes": np.array([[64, 96], [0, 0]])}, 3)
    require_values(given(**{name: lambda v: v[:, :0] for name in ("gt_boxes", "gt_labels", "gt_crowd")}), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": lambda v: v.astype("float32") / 255}, r"images must have values of 0\.\.255, got none beyond"),
        ({"gt_boxes": lambda v: v / 100}, "gt_boxes must be in pixels, got none beyond 1"),
    ],
)
def test_pixels_and_boxes_that_were_brought_to_0_to_1_are_warned_of(change, message):
    with pytest.warns(UserWarning, match=message):
        require_values(given(**change), 3)


class Batches(keras.utils.PyDataset):
    """Gives one batch."""

    def __init__(self, one):
        super().__init__()
        self.one, self.ended = one, 0

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.one

    def on_epoch_end(self):
        self.ended += 1


def test_batches_of_every_kind_are_checked_when_they_are_made():
    good, bad = given(), given(gt_labels=lambda v: v + 3)
    kinds = {
        "generator": lambda one: (part for part in [one]),
        "PyDataset": Batches,
        "tf.data": lambda one: tf.data.Dataset.from_tensors((one,)),
    }
    for name, make in kinds.items():
        (element,) = _all_of(checked_batches(make(good), 3))
        got = element[0] if isinstance(element, tuple) else element
        np.testing.assert_array_equal(got["images"], good["images"], err_msg=name)
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="gt_labels must lie in"):
            _all_of(checked_batches(make(bad), 3))
    data = checked_batches(own := Batches(good), 3)
    data.on_epoch_end()
    assert (data.num_batches, own.ended) == (1, 1)
    with pytest.raises(ValueError, match="gt_labels must lie in"):
        checked_batches(bad, 3)


def _all_of(data):
    return [data[0]] if isinstance(data, keras.utils.PyDataset) else list(data)


@pytest.fixture(scope="module")
def model():
    return kfpn.trainable(detector(), **SAMPLING)


def test_whatever_dtypes_a_batch_has_its_losses_are_the_same(model):
    one = batch(0, boxes=1)
    others = {
        "images": "float64", "image_sizes": "int64", "gt_boxes": "float64", "gt_labels": "int64", "gt_crowd": "int32",
    }  # fmt: skip
    expected = model(one, training=False)
    got = model({name: value.astype(others.get(name, value.dtype)) for name, value in one.items()}, training=False)
    for name in LOSSES:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, err_msg=name)


def test_a_batch_without_a_row_for_boxes_has_the_losses_of_an_empty_row(model):
    one = batch(0, boxes=1)
    empty = {**one, "gt_labels": one["gt_labels"] * 0 - 1}
    cut = {name: value[:, :0] if name.startswith("gt_") else value for name, value in one.items()}
    cut["noise_roi"] = one["noise_roi"][:, :-1]
    expected, got = model(empty, training=False), model(cut, training=False)
    for name in LOSSES:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, err_msg=name)
