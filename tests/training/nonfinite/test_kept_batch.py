"""Tests the file that keeps the batch of a step whose loss is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from kfpn.training.nonfinite.kept_batch import read_batch, write_batch


def test_a_batch_with_bytes_of_any_length_is_kept_without_pickles(tmp_path):
    rows = np.array([[b"one", b""], [b"ends with zeros\0\0", b"\0"]], object)
    images = np.arange(6, dtype=np.uint8).reshape(2, 3)
    write_batch(tmp_path / "batch.npz", {"images": images, "gt_outlines": rows, "none": np.empty((2, 0), object)})
    kept = read_batch(tmp_path / "batch.npz")
    assert set(kept) == {"images", "gt_outlines", "none"}
    np.testing.assert_array_equal(kept["images"], images)
    assert kept["images"].dtype == np.uint8
    assert kept["gt_outlines"].tolist() == rows.tolist()
    assert tf.constant(kept["gt_outlines"]).dtype == tf.string
    assert kept["none"].shape == (2, 0)


def test_a_file_that_is_no_batch_is_named(tmp_path):
    (tmp_path / "batch.npz").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"batch.npz must be the batch that a run kept, got"):
        read_batch(tmp_path / "batch.npz")
