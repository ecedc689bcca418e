import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.export.archive import CLASSES
from kfpn.export.saved_model.full_masks import FULL_MASKS, full_masks_of
from kfpn.export.saved_model.request_limits import RequestLimits
from kfpn.export.saved_model.verify_full_masks import require_pasted
from kfpn.export.saved_model.write_saved_model import ServedDetector, export_saved_model
from kfpn.export.verify import ExportMismatch
from kfpn.ops.mask_paste import paste_masks
from tests.eager import eagerly, graphs


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def served(trained_masks):
    return ServedDetector(trained_masks, full_masks=True)


@pytest.fixture(scope="module")
def answer(served, photo, encoded):
    """Returns the answer to a request of three files: an image, one that can't be read, and another image."""
    files = [encoded(photo(96, 128)), b"no image", encoded(photo(150, 100, 1))]
    outputs = served.detect_files(tf.constant(files))
    return {name: value.numpy() for name, value in outputs.items()}


def test_full_masks_are_the_pasted_masks_in_the_pixels_of_each_image(answer):
    assert answer["detection_masks"].shape == (3, 6, 28, 28)
    assert answer["detection_masks"].dtype == np.float32
    full = answer[FULL_MASKS]
    assert (full.shape, full.dtype) == ((3, 6, 150, 128), np.uint8)
    for i, (height, width) in ((0, (96, 128)), (2, (150, 100))):
        count = int(answer["num_detections"][i])
        assert count > 0
        expected = paste_masks(
            answer["detection_masks"][i], answer["detection_boxes_pixels"][i], height, width, rule="sampled"
        )
        assert expected.any()
        assert (full[i, :, :height, :width] != expected).mean() < 1e-4
        assert not full[i, :, height:].any()
        assert not full[i, :, :, width:].any()
        assert not full[i, count:].any()
        assert full.max() == 1


def test_the_row_of_a_bad_file_has_no_masks(answer):
    assert answer["errors"][1] != b""
    assert not answer[FULL_MASKS][1].any()
    assert not answer["detection_masks"][1].any()


def test_a_request_of_bad_files_alone_is_answered_with_masks_without_pixels(served):
    outputs = served.detect_files(tf.constant([b"no image", b"nor this"]))
    assert outputs[FULL_MASKS].shape == (2, 6, 0, 0)
    assert all(outputs["errors"].numpy())


def test_more_pixels_of_masks_than_the_limit_are_refused(trained_masks, photo):
    images = tf.constant(photo(96, 128)[None])
    limits = RequestLimits(max_mask_pixels=6 * 96 * 128)
    ServedDetector(trained_masks, limits=limits, full_masks=True).detect_pixels(images)
    limits = RequestLimits(max_mask_pixels=6 * 96 * 128 - 1)
    message = "full masks must have at most 73727 pixels in all, 6 masks an image, got 73728: send fewer"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ServedDetector(trained_masks, limits=limits, full_masks=True).detect_pixels(images)


@pytest.mark.parametrize("rule", ["sampled", "resized"])
def test_a_mask_does_not_reach_beyond_its_own_image(rule):
    masks, boxes = np.ones((2, 1, 28, 28), np.float32), np.array([[[0, 0, 20, 30]]] * 2, np.float32)
    got = full_masks_of(tf.constant(masks), tf.constant(boxes), tf.constant([[20, 30], [40, 50]]), rule).numpy()
    assert got.shape == (2, 1, 40, 50)
    assert got[0, 0, :20, :30].sum() > 19 * 29
    assert not got[0, 0, 20:].any()
    assert not got[0, 0, :, 30:].any()
    np.testing.assert_array_equal(got[1, 0], paste_masks(masks[1], boxes[1], 40, 50, rule=rule)[0])


def test_full_masks_of_another_pixel_are_found_by_the_comparison(answer, photo):
    images = [photo(96, 128)]
    one = {name: value[:1, ..., :96, :128] if name == FULL_MASKS else value[:1] for name, value in answer.items()}
    assert require_pasted(one, images, "sampled") <= 2
    for change in (
        lambda full: full.__setitem__((0, 0, slice(0, 9)), 1 - full[0, 0, :9]),
        lambda full: full.__setitem__((0, slice(1, None)), 1),
    ):
        wrong = one[FULL_MASKS].copy()
        change(wrong)
        with pytest.raises(ExportMismatch, match="must be the pasted detection_masks"):
            require_pasted({**one, FULL_MASKS: wrong}, images, "sampled")
    assert require_pasted({"num_detections": np.zeros(1)}, images, "sampled") is None


def test_full_masks_need_a_detector_with_masks(tiny_workdir, tmp_path):
    with pytest.raises(ValueError, match="full_masks must go with a detector that has masks"):
        export_saved_model(tiny_workdir, tmp_path / "served", full_masks=True)
    assert list(tmp_path.iterdir()) == []


def test_full_masks_need_a_signature_that_detects(mask_workdir, tmp_path):
    with pytest.raises(ValueError, match="full_masks must go with image_bytes or image_tensor, got the signature prop"):
        export_saved_model(mask_workdir, tmp_path / "served", signatures=("proposals",), full_masks=True)
    assert list(tmp_path.iterdir()) == []


def test_warmup_requests_with_more_pixels_of_masks_than_the_server_takes_are_refused(
    mask_workdir, tmp_path, photo, encoded
):
    (tmp_path / "photo.png").write_bytes(encoded(photo(96, 128)))
    limits = RequestLimits(max_mask_pixels=2 * 6 * 96 * 128 - 1)
    message = "at most 147455 pixels in the full masks of the answer, got 147456: make .* or max_mask_pixels larger"
    with pytest.raises(ValueError, match=message):
        export_saved_model(
            mask_workdir,
            tmp_path / "served",
            warmup=[tmp_path / "photo.png"],
            warmup_batch_sizes=(2,),
            limits=limits,
            full_masks=True,
        )
    assert not (tmp_path / "served").exists()


def test_a_version_with_masks_is_verified_and_holds_the_rule_of_pasting(mask_workdir, tmp_path, capsys):
    with graphs():
        path = export_saved_model(
            mask_workdir, tmp_path / "served", signatures=("image_tensor",), verify=True, full_masks=True
        )
    assert re.search(r", cell of a mask .* masks\), pixels of all full masks \d+; ", capsys.readouterr().out)
    assert json.loads((path / CLASSES).read_text())["pasting"] == "sampled"
    shapes = tf.saved_model.load(str(path)).signatures["image_tensor"].structured_outputs
    assert shapes["detection_masks"].shape.as_list() == [None, 6, 28, 28]
    assert (shapes[FULL_MASKS].dtype, shapes[FULL_MASKS].shape.rank) == (tf.uint8, 4)


# The client that stands alone.


@pytest.fixture(scope="module")
def client():
    path = Path(__file__).parents[3] / "examples" / "serving_client.py"
    spec = importlib.util.spec_from_file_location("serving_client_of_masks", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_client_of_masks"] = module
    spec.loader.exec_module(module)
    return module


def test_the_client_pastes_as_the_package_does(client, answer):
    masks, boxes = answer["detection_masks"][0], answer["detection_boxes_pixels"][0]
    expected = paste_masks(masks, boxes, 96, 128)
    own = np.stack([client.pasted(mask, box, 96, 128) for mask, box in zip(masks, boxes, strict=True)])
    assert (own != expected).mean() < 1e-4
    assert not client.pasted(masks[0], np.zeros(4), 96, 128).any()


def test_the_client_draws_masks_of_both_kinds_and_nothing_without_them(client, answer):
    picture = Image.new("RGB", (128, 96), "white")
    rows = [(0, 3), (1, 7)]
    small = {name: value for name, value in answer.items() if name != FULL_MASKS}
    filled = {
        name: np.array(client.fill(picture, given, 0, rows)) for name, given in (("full", answer), ("small", small))
    }
    changed = (filled["full"] != 255).any(-1)
    np.testing.assert_array_equal(changed, answer[FULL_MASKS][0, :2, :96, :128].any(0))
    assert (filled["full"] != filled["small"]).any(-1).mean() < 1e-3
    without = {name: value for name, value in small.items() if name != "detection_masks"}
    np.testing.assert_array_equal(np.array(client.fill(picture, without, 0, rows)), np.array(picture))
