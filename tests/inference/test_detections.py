import sys
import warnings

import numpy as np
import pytest
from pycocotools import mask as coco_mask

import kfpn
from kfpn.inference.detections import DictOfBefore, Labelling

IMAGE = np.full((40, 60, 3), 90, np.uint8)
FOUND = {
    "boxes": np.array([[10, 20, 30, 50], [0, 0, 40, 60], [5, 5, 6, 7]], np.float32),
    "scores": np.array([0.9, 0.6, 0.3], np.float32),
    "labels": np.array([1, 0, 1], np.int32),
}
MASKS = np.zeros((3, 4, 4), np.float32)
MASKS[0, :, :2] = 1.0  # the left half of its box
MASKS[1] = 1.0


def detections(paste=False, least=0.5, pasting="sampled", **found):
    labelling = Labelling(("ant", "bee"), least, (7, 90), pasting)
    return labelling.detections({**FOUND, **found}, IMAGE.shape[:2], paste)


def test_what_is_sure_enough_has_names_and_the_size_of_its_image():
    found = detections()
    assert (len(found), found.names, found.image_size, found.masks) == (2, ("bee", "ant"), (40, 60), None)
    np.testing.assert_array_equal(found.boxes, FOUND["boxes"][:2])
    assert detections(least=(0.7, 0.2)).names == ("bee", "bee")
    assert (len(detections(least=1.0)), detections(least=1.0).boxes.shape) == (0, (0, 4))


def test_some_of_the_detections_are_picked_like_rows_of_an_array():
    found = detections(True, 0.0, masks=MASKS)
    best = found[found.scores > 0.5]
    assert (best.names, best.masks.shape, best.category_ids.tolist()) == (("bee", "ant"), (2, 40, 60), [90, 7])
    assert found[[2, 0]].scores.tolist() == found.scores[[2, 0]].tolist()
    assert found[-1:].names == found[2].names == ("bee",)


def test_coco_rows_have_the_categories_of_the_data_set_and_run_lengths():
    rows = detections().to_coco(5)
    assert rows[0] == {
        "image_id": 5, "category_id": 90, "bbox": [20, 10, 30, 20], "score": pytest.approx(0.9), "category_name": "bee"
    }  # fmt: skip
    assert rows[1]["category_id"] == 7
    pasted = kfpn.paste_masks(MASKS[:1], FOUND["boxes"][:1], 40, 60)[0]
    assert pasted[20].nonzero()[0].tolist() == list(range(20, 35))  # the left half of a box from 20 to 50
    for paste in (False, True):
        mask = coco_mask.decode(detections(paste, masks=MASKS).to_coco(5)[0]["segmentation"])
        np.testing.assert_array_equal(mask, pasted)


def test_a_picture_has_the_boxes_and_the_masks():
    found = detections(masks=MASKS)[:1]
    drawn, pasted = found.draw(IMAGE), detections(True, masks=MASKS)[:1].draw(IMAGE)
    np.testing.assert_array_equal(drawn, pasted)
    expected = kfpn.draw_detections(
        IMAGE, found.boxes, found.labels, found.scores, ("ant", "bee"), masks=detections(True, masks=MASKS).masks[:1]
    )
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn[20, 24] != IMAGE[20, 24]).any()  # in the mask, above the words
    assert (drawn[20, 42] == IMAGE[20, 42]).all()  # in the box, not in the mask
    with pytest.raises(
        ValueError, match=r"image must be \(40, 60, 3\), the image that was looked at, got \(40, 61, 3\)"
    ):
        found.draw(np.zeros((40, 61, 3), np.uint8))


def test_the_dict_of_before_is_still_answered_with_one_warning(monkeypatch):
    monkeypatch.setattr(DictOfBefore, "_is_warned_of", False)
    found = detections(masks=MASKS)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert found["masks"].shape == (2, 4, 4)
        assert found["names"] == ["bee", "ant"]
        assert list(found) == list(found.keys()) == ["boxes", "scores", "labels", "names", "masks"]
        assert ("masks" in found, "masks" in detections(), "category_ids" in found) == (True, False, False)
        assert [key for key, _ in found.items()] == list({**found}) == list(dict(found))
        assert dict(found)["boxes"] is found.get("boxes") is found.boxes
        assert (detections().get("masks"), found.get("none", 3), len(found.values())) == (None, 3, 5)
        with pytest.raises(KeyError, match="masks"):
            detections()["masks"]
    ((line, place),) = [(str(one.message), one.filename) for one in warned]
    assert line.startswith("kfpn.predict gives kfpn.Detections, no dict: write found.boxes, found.scores")
    assert place == __file__


def test_supervision_gets_boxes_masks_and_names():
    supervision = pytest.importorskip("supervision", reason="needs the extra supervision")
    found = detections(masks=MASKS).to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.xyxy.tolist() == [[20, 10, 50, 30], [0, 0, 60, 40]]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.6])
    assert found.class_id.tolist() == [1, 0]
    assert found.data["class_name"].tolist() == ["bee", "ant"]
    dense = detections(True, masks=MASKS)
    np.testing.assert_array_equal(dense.to_supervision().mask, dense.masks)
    assert isinstance(found.mask, supervision.CompactMask)
    np.testing.assert_array_equal(np.asarray(found.mask), dense.masks)
    beyond = detections(masks=MASKS, pasting="resized", boxes=FOUND["boxes"] + 0.3)  # pixels beyond the box are kept
    np.testing.assert_array_equal(
        np.asarray(beyond.to_supervision().mask),
        kfpn.paste_masks(MASKS[:2], beyond.boxes, 40, 60, rule="resized"),
    )
    assert detections().to_supervision().mask is None
    assert len(detections(least=1.0).to_supervision()) == 0
    merged = supervision.Detections.merge([found, detections(least=1.0, masks=MASKS).to_supervision()])
    assert merged[merged.data["class_name"] == "bee"].confidence.tolist() == pytest.approx([0.9])


def test_without_supervision_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ValueError, match=r'supervision must be installed .*: pip install "kfpn\[supervision\]"'):
        detections().to_supervision()
