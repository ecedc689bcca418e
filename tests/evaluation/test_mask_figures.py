import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record
from kfpn.evaluation.coco_figures import FIGURES, evaluate_coco, evaluate_coco_json
from kfpn.evaluation.coco_rows import detections_to_coco
from kfpn.evaluation.segmentations import decoded_part

# The official answer for the masks of ../shared/data/known_coco, of pycocoEvalDemo.ipynb, which prints three digits; AP is given with six.
KNOWN = (0.320, 0.562, 0.299, 0.387, 0.310, 0.327, 0.268, 0.415, 0.417, 0.469, 0.377, 0.381)
KNOWN_AP = 0.319545
SIZE = (100, 120)


def rectangle(top, left, bottom, right):
    """Returns the run lengths of a filled box, as a detection has them."""
    bitmap = np.zeros(SIZE, np.uint8)
    bitmap[top:bottom, left:right] = 1
    packed = coco_mask.encode(np.asfortranarray(bitmap))
    return {"size": list(SIZE), "counts": packed["counts"].decode()}


def record(boxes, masks, image_id=1, areas=None, labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(
        image="unused.jpg", image_id=image_id, height=SIZE[0], width=SIZE[1], boxes=boxes,
        labels=np.zeros(len(boxes), np.int32) if labels is None else np.array(labels, np.int32), crowd=np.zeros(len(boxes), bool),
        areas=np.array((boxes[:, 2:] - boxes[:, :2]).prod(1) if areas is None else areas, np.float32),
        masks=None if masks is None else ObjectMasks.of(masks, SIZE),
    )  # fmt: skip


def detection(boxes, scores, masks, image_id=1):
    segmentations = np.empty(len(masks), object)
    segmentations[:] = masks
    return {
        "image_id": image_id, "boxes": np.array(boxes, np.float32).reshape(-1, 4), "scores": np.array(scores, np.float32),
        "labels": np.zeros(len(boxes), np.int32), "segmentations": segmentations,
    }  # fmt: skip


def of_masks(answer):
    return [answer[f"mask_{name}"] for name in FIGURES]


def known_records(truth):
    labels = {row["id"]: label for label, row in enumerate(sorted(truth["categories"], key=lambda row: row["id"]))}
    for image in truth["images"]:
        rows, size = (
            [row for row in truth["annotations"] if row["image_id"] == image["id"]],
            (image["height"], image["width"]),
        )
        x, y, w, h = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4).T
        outlines = [
            [np.array(polygon) for polygon in row["segmentation"]]
            if isinstance(row["segmentation"], list)
            else row["segmentation"]
            for row in rows
        ]
        yield Record(
            image="unused.jpg", image_id=image["id"], height=size[0], width=size[1],
            boxes=np.stack([y, x, y + h, x + w], 1).astype(np.float32), labels=np.array([labels[row["category_id"]] for row in rows], np.int32),
            crowd=np.array([row["iscrowd"] for row in rows], bool), areas=np.array([row["area"] for row in rows], np.float32),
            masks=ObjectMasks.of(outlines, size),
        )  # fmt: skip


def test_the_known_files_give_the_known_figures_as_files_and_as_records(shared):
    folder = shared("data/known_coco")
    files = folder / "instances_val2014_100.json", folder / "instances_val2014_fakesegm100_results.json"
    as_files = evaluate_coco_json(*files)
    np.testing.assert_allclose(of_masks(as_files), KNOWN, rtol=0, atol=5.01e-4)
    assert as_files["mask_AP"] == pytest.approx(KNOWN_AP, abs=1e-6)
    truth, results = (json.loads(file.read_text()) for file in files)
    names = [row["name"] for row in sorted(truth["categories"], key=lambda row: row["id"])]
    label_of = {row["id"]: names.index(row["name"]) for row in truth["categories"]}
    detections = []
    for image_id in sorted({row["image_id"] for row in results}):
        rows = [row for row in results if row["image_id"] == image_id]
        x, y, w, h = np.array([coco_mask.toBbox(row["segmentation"]) for row in rows]).T
        one = detection(
            np.stack([y, x, y + h, x + w], 1),
            [row["score"] for row in rows],
            [row["segmentation"] for row in rows],
            image_id,
        )
        detections.append(one | {"labels": np.array([label_of[row["category_id"]] for row in rows])})
    as_records = evaluate_coco(known_records(truth), detections, names)
    np.testing.assert_allclose(of_masks(as_records), of_masks(as_files), rtol=0, atol=1e-6)
    assert as_records["mask_per_class"] == pytest.approx(as_files["mask_per_class"], abs=1e-6)


BOX = (10, 20, 50, 60)  # 40 x 40
HALF = (10, 20, 50, 40)


def test_average_precision_of_masks_is_the_one_computed_by_hand():
    # The box is exact. The mask has an IoU of 30 / 40 with the object's, which is enough for 6 of the 10 thresholds.
    truth = record([BOX], [[[20, 10, 60, 10, 60, 50, 20, 50]]])
    answer = evaluate_coco([truth], [detection([BOX], [0.9], [rectangle(10, 20, 40, 60)])], ["cat"])
    assert answer["AP"] == pytest.approx(1.0)
    assert (answer["mask_AP"], answer["mask_AP50"], answer["mask_AP75"]) == pytest.approx((0.6, 1.0, 1.0))
    assert answer["mask_per_class"] == {"cat": pytest.approx(0.6)}
    assert list(answer) == [*FIGURES, "per_class", *(f"mask_{name}" for name in (*FIGURES, "per_class"))]


def test_figures_of_masks_at_the_detectors_own_limit_stand_beside_those_of_coco():
    truth = record([BOX], [[[20, 10, 60, 10, 60, 50, 20, 50]]])
    answer = evaluate_coco([truth], [detection([BOX], [0.9], [rectangle(*BOX)])], ["cat"], limit=500)
    assert (answer["mask_AP@500"], answer["mask_AR@500"]) == pytest.approx((1.0, 1.0))


def test_detections_on_an_object_without_a_mask_count_neither_as_right_nor_as_wrong():
    other = (60, 70, 90, 110)
    truth = record([BOX, other], [[[20, 10, 60, 10, 60, 50, 20, 50]], None])
    rows = detection([other, BOX], [0.9, 0.8], [rectangle(*other), rectangle(*BOX)])
    answer = evaluate_coco([truth], [rows], ["cat"])
    assert (answer["mask_AP"], answer["AP"]) == pytest.approx((1.0, 1.0))
    elsewhere = (60, 0, 90, 20)
    rows = detection([elsewhere, BOX], [0.9, 0.8], [rectangle(*elsewhere), rectangle(*BOX)])
    assert evaluate_coco([truth], [rows], ["cat"])["mask_AP"] == pytest.approx(0.5)


def test_the_area_of_a_detection_is_that_of_its_mask():
    # A wrong detection counts among the small objects where its mask is small, although its box is medium.
    truth = record([(10, 20, 30, 40)], [[[20, 10, 40, 10, 40, 30, 20, 30]]])
    wrong = (40, 60, 80, 110)
    rows = detection([wrong, (10, 20, 30, 40)], [0.9, 0.8], [rectangle(40, 60, 50, 70), rectangle(10, 20, 30, 40)])
    answer = evaluate_coco([truth], [rows], ["cat"])
    assert (answer["mask_APs"], answer["APs"]) == pytest.approx((0.5, 1.0))


def test_without_masks_of_the_objects_the_figures_of_masks_are_none():
    rows = detection([BOX], [0.9], [rectangle(*BOX)])
    for masks in (None, [None]):
        answer = evaluate_coco([record([BOX], masks)], [rows], ["cat"])
        assert answer["AP"] == pytest.approx(1.0)
        assert of_masks(answer) == [None] * 12
        assert answer["mask_per_class"] == {"cat": None}


def test_images_without_a_detection_still_have_figures_of_masks():
    answer = evaluate_coco([record([BOX], [[[20, 10, 60, 10, 60, 50, 20, 50]]])], [detection([], [], [])], ["cat"])
    assert answer["mask_AP"] == answer["AP"] == 0.0


def test_results_with_masks_are_json_that_pycocotools_reads():
    (row,) = json.loads(json.dumps(detections_to_coco([detection([BOX], [0.5], [rectangle(*HALF)])], [18])))
    assert row.keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert coco_mask.decode(row["segmentation"]).sum() == decoded_part(row["segmentation"]).pixels.sum() == 40 * 20


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            None,
            r"results\[1\]: segmentation must be COCO's compressed run lengths, as in all rows with masks, got None",
        ),
        ([[1, 2, 3, 4, 5, 6]], r"results\[1\]: segmentation must be COCO's compressed run lengths"),
        ({"size": [50, 60], "counts": "P1"}, r"must have the size of image 1, \[100, 120\], got \[50, 60\]"),
    ],
)
def test_a_results_file_with_other_masks_is_refused(tmp_path, segmentation, message):
    truth = {
        "images": [{"id": 1, "height": 100, "width": 120}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    row = {"image_id": 1, "category_id": 1, "score": 0.5}
    rows = [{**row, "segmentation": rectangle(*BOX)}, {**row, "segmentation": segmentation}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=f"results.json: .*{message}"):
        evaluate_coco_json(tmp_path / "truth.json", tmp_path / "results.json")


@pytest.mark.parametrize("counts", ["zzzzzzzz", "", "P4"])
def test_text_that_is_no_run_lengths_is_refused_and_does_not_hang(tmp_path, counts):
    truth = {
        "images": [{"id": 1, "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 6, 6], "area": 36, "iscrowd": 0}],
    }
    row = {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": {"size": [20, 30], "counts": counts}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=r"results\[0\]: segmentation must have counts"):
        evaluate_coco_json(tmp_path / "truth.json", tmp_path / "results.json")


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ([[2, 2, 8, 8]], "annotation 7: segmentation must have polygons of at least three points"),
        ("poly", "annotation 7: segmentation must be polygons or run lengths"),
        ({"size": [30, 20], "counts": [0, 600]}, "annotation 7: segmentation must be of the image's size 20 x 30"),
        ({"size": [20, 30], "counts": [0, 60000]}, "annotation 7: segmentation must have counts whose sum is"),
    ],
)
def test_an_annotations_file_whose_masks_cannot_be_drawn_is_refused(tmp_path, outline, said):
    bitmap = coco_mask.encode(np.zeros((20, 30), np.uint8, order="F"))
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [2, 2, 6, 6], "area": 36, "iscrowd": 0}
    truth = {
        "images": [{"id": 1, "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{**annotation, "segmentation": outline}],
    }
    found = {"size": [20, 30], "counts": bitmap["counts"].decode()}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": found}])
    )
    with pytest.raises(ValueError, match=f"truth.json: {said}"):
        evaluate_coco_json(tmp_path / "truth.json", tmp_path / "results.json")
