import json
import math

import numpy as np
import pytest
from PIL import Image

from kfpn.data.formats.coco import CocoSource
from kfpn.data.record import Record
from kfpn.evaluation.coco_figures import FIGURES, evaluate_coco, evaluate_coco_json
from kfpn.evaluation.coco_rows import detections_to_coco

# The figures of ../shared/data/known_coco (SOURCE.txt there). Set 1 is the result of COCO's own demo notebook. Those who
# collected the files computed all three sets again with pycocotools.
SET_1 = (
    0.504581,
    0.696973,
    0.572982,
    0.585626,
    0.519400,
    0.501398,
    0.386813,
    0.593680,
    0.595353,
    0.639811,
    0.566421,
    0.564291,
)
SET_2 = (
    0.503647,
    0.696973,
    0.571667,
    0.593252,
    0.557991,
    0.489363,
    0.386813,
    0.593680,
    0.595353,
    0.654764,
    0.603130,
    0.553744,
)
SET_3 = (
    0.616910,
    1.0,
    0.706877,
    0.604176,
    0.626292,
    0.610163,
    0.478046,
    0.645185,
    0.648446,
    0.628427,
    0.653364,
    0.640547,
)


def record(image_id, boxes=(), labels=None, crowd=None, areas=None, size=(1000, 1000)):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return Record(
        image="unused.jpg",
        image_id=image_id,
        height=size[0],
        width=size[1],
        boxes=boxes,
        labels=np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32),
        crowd=np.zeros(count, bool) if crowd is None else np.asarray(crowd, bool),
        areas=np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if areas is None else areas, np.float32),
    )


def detection(image_id, boxes=(), scores=(), labels=()):
    return {
        "image_id": image_id,
        "boxes": np.asarray(boxes, np.float32).reshape(-1, 4),
        "scores": np.asarray(scores, np.float32),
        "labels": np.asarray(labels, np.int32),
    }


def yxyx(xywh):
    x, y, w, h = np.asarray(xywh, np.float64).reshape(-1, 4).T
    return np.stack([y, x, y + h, x + w], axis=1)


def figures(answer):
    return [answer[name] for name in FIGURES]


def read_records_and_detections(annotations_path, results):
    """Reads a COCO file and its results without kfpn's readers, and returns records, detections and class names."""
    truth = json.loads(annotations_path.read_text())
    labels = {row["id"]: label for label, row in enumerate(sorted(truth["categories"], key=lambda row: row["id"]))}
    records, detections = [], []
    for image in truth["images"]:
        objects = [row for row in truth["annotations"] if row["image_id"] == image["id"]]
        rows = [row for row in results if row["image_id"] == image["id"]]
        records.append(
            record(
                image["id"],
                yxyx([row["bbox"] for row in objects]),
                [labels[row["category_id"]] for row in objects],
                [row["iscrowd"] for row in objects],
                [row["area"] for row in objects],
                (image["height"], image["width"]),
            )
        )
        if rows:
            detections.append(
                {
                    "image_id": image["id"],
                    "boxes": yxyx([row["bbox"] for row in rows]),
                    "scores": np.array([row["score"] for row in rows]),
                    "labels": np.array([labels[row["category_id"]] for row in rows]),
                }
            )
    return records, detections, [row["name"] for row in sorted(truth["categories"], key=lambda row: row["id"])]


@pytest.mark.parametrize(
    ("truth", "results", "expected"),
    [
        ("instances_val2014_100.json", "instances_val2014_fakebbox100_results.json", SET_1),
        ("rodm_test_coco_eval/gts/sampled_gts_bbox_area.json", "rodm_test_coco_eval/cocoapi_results.json", SET_2),
    ],
    ids=["set 1, with crowd and mask areas", "set 2, without crowd, box areas"],
)
def test_the_known_files_give_the_known_figures_as_files_and_as_records(shared, truth, results, expected):
    truth, results = shared("data/known_coco") / truth, shared("data/known_coco") / results
    as_files = evaluate_coco_json(truth, results)
    as_records = evaluate_coco(*read_records_and_detections(truth, json.loads(results.read_text())))
    np.testing.assert_allclose(figures(as_files), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(figures(as_records), expected, rtol=0, atol=1e-6)
    assert as_records["per_class"] == pytest.approx(as_files["per_class"], abs=1e-6)


def test_records_of_the_coco_source_give_the_known_figures(shared, tmp_path):
    truth = shared("data/known_coco/instances_val2014_100.json")
    results = json.loads(shared("data/known_coco/instances_val2014_fakebbox100_results.json").read_text())
    for image in json.loads(truth.read_text())["images"]:  # the source opens the images, which may be blank
        Image.new("L", (image["width"], image["height"])).save(tmp_path / image["file_name"], quality=1)
    source = CocoSource(truth, tmp_path)
    _, detections, names = read_records_and_detections(truth, results)
    assert list(source.class_names) == names
    answer = evaluate_coco((source[index] for index in range(len(source))), detections, names)
    np.testing.assert_allclose(figures(answer), SET_1, rtol=0, atol=1e-6)


def test_the_known_arrays_of_keras_cv_give_the_known_figures(shared):
    arrays = np.load(shared("data/known_coco/kerascv/sample_boxes.npz"))
    records, detections = [], []
    for image_id, (truth, detected) in enumerate(zip(arrays["arr_0"], arrays["arr_1"], strict=True)):
        truth, detected = truth[truth[:, 4] >= 0], detected[detected[:, 4] >= 0]
        area = truth[:, 2] * truth[:, 3]
        records.append(record(image_id, yxyx(truth[:, :4]), truth[:, 4], areas=area))
        detections.append(
            {
                "image_id": image_id,
                "boxes": yxyx(detected[:, :4]),
                "scores": detected[:, 5],
                "labels": detected[:, 4].astype(int),
            }
        )
    answer = evaluate_coco(records, detections, [str(label) for label in range(91)])
    np.testing.assert_allclose(figures(answer), SET_3, rtol=0, atol=1e-6)


def test_perfect_detections_have_an_ap_of_one_and_sizes_without_objects_have_none(capsys):
    boxes = [[10, 20, 50, 70], [100, 100, 140, 150]]  # 40 x 50 = 2000: medium
    answer = evaluate_coco([record(7, boxes, [0, 1])], [detection(7, boxes, [0.9, 0.8], [0, 1])], ["cat", "dog"])
    assert answer["AP"] == pytest.approx(1.0)
    assert answer["APm"] == pytest.approx(1.0)
    assert answer["APs"] is None
    assert answer["ARl"] is None
    assert answer["per_class"] == pytest.approx({"cat": 1.0, "dog": 1.0})
    assert capsys.readouterr().out == ""  # what pycocotools prints must not stand in training's output


def test_average_precision_is_the_one_computed_by_hand():
    # There is one object, and a wrong detection has a higher score than the right one. So precision is 1/2 at all recalls.
    # The right one has an IoU of .75, which is enough for 6 of the 10 thresholds (.50 to .75). AP is 0.6 * 0.5.
    truth = record(1, [[0, 0, 100, 100]])
    detections = detection(1, [[500, 500, 600, 600], [0, 0, 75, 100]], [0.9, 0.8], [0, 0])
    answer = evaluate_coco([truth], [detections], ["cat"])
    assert answer["AP50"] == pytest.approx(0.5)
    assert answer["AP75"] == pytest.approx(0.5)
    assert answer["AP"] == pytest.approx(0.3)
    assert answer["AR1"] == 0.0
    assert answer["AR10"] == pytest.approx(0.6)


def test_boxes_are_yxyx():
    tall = [0, 0, 200, 50]  # y 0..200, x 0..50
    truth = record(1, [tall])
    assert evaluate_coco([truth], [detection(1, [tall], [0.9], [0])], ["cat"])["AP"] == pytest.approx(1.0)
    assert evaluate_coco([truth], [detection(1, [[0, 0, 50, 200]], [0.9], [0])], ["cat"])["AP"] == 0.0


def test_detections_on_a_crowd_do_not_count():
    with_crowd = record(1, [[0, 0, 50, 50], [100, 100, 300, 300]], crowd=[False, True])
    right, inside = [0, 0, 50, 50], [[110, 110, 150, 150], [200, 200, 240, 240]]
    detections = detection(1, [*inside, right], [0.99, 0.98, 0.5], [0, 0, 0])
    assert evaluate_coco([with_crowd], [detections], ["cat"])["AP"] == pytest.approx(1.0)
    without_crowd = record(1, [[0, 0, 50, 50]])
    assert evaluate_coco([without_crowd], [detections], ["cat"])["AP"] == pytest.approx(1 / 3)


def test_the_annotated_area_and_not_the_box_decides_the_size():
    box = [0, 0, 100, 100]  # a large box around a small mask
    answer = evaluate_coco([record(1, [box], areas=[500])], [detection(1, [box], [0.9], [0])], ["cat"])
    assert answer["APs"] == pytest.approx(1.0)
    assert answer["APl"] is None


def test_without_detections_the_figures_are_zero():
    for nothing in ([], [detection(1)]):
        answer = evaluate_coco([record(1, [[0, 0, 50, 50]])], nothing, ["cat"])
        assert answer["AP"] == answer["AP50"] == answer["AR100"] == 0.0
        assert answer["per_class"] == {"cat": 0.0}


def test_without_ground_truth_the_figures_are_none():
    one = [detection(1, [[0, 0, 50, 50]], [0.9], [0])]
    for records, detections in (([record(1)], one), ([record(1)], []), ([], [])):
        answer = evaluate_coco(records, detections, ["cat"])
        assert figures(answer) == [None] * 12
        assert answer["per_class"] == {"cat": None}
    assert evaluate_coco([record(1, [[0, 0, 9, 9]], crowd=[True])], one, ["cat"])["AP"] is None


def test_a_class_without_ground_truth_does_not_count():
    truth = record(1, [[0, 0, 50, 50]])
    detections = detection(1, [[0, 0, 50, 50], [60, 60, 90, 90]], [0.5, 0.9], [0, 1])
    answer = evaluate_coco([truth], [detections], ["cat", "dog"])
    assert answer["AP"] == pytest.approx(1.0)
    assert answer["per_class"] == {"cat": pytest.approx(1.0), "dog": None}


def test_classes_of_one_name_keep_their_own_figures():
    answer = evaluate_coco([record(1, [[0, 0, 50, 50]])], [], ["ball", "ball", "bat"])
    assert answer["per_class"] == {"ball (0)": 0.0, "ball (1)": None, "bat": None}


@pytest.mark.parametrize(
    ("records", "detections", "message"),
    [
        ([record(1)], [detection(2)], "id of a record, got 2"),
        ([record(1)], [detection(1), detection(1)], "must occur once, got 1"),
        ([record(1), record(1)], [], "must be unique, got 1"),
        ([record(1)], [detection(1, [[0, 0, 1, 1]], [0.5], [1])], r"labels must lie in 0\.\.0, got 1"),
        ([record(1)], [detection(1, [[0, 0, 1, 1]], [0.5], [-1])], r"labels must lie in 0\.\.0, got -1"),
        ([record(1, [[0, 0, 1, 1]], [3])], [], r"labels must lie in 0\.\.0, got 3"),
        ([record(1)], [detection(1, [[0, 0, 1, 1]], [], [0])], "one length, got 1, 0 and 1"),
    ],
)
def test_ids_and_labels_that_do_not_fit_are_refused(records, detections, message):
    with pytest.raises(ValueError, match=message):
        evaluate_coco(records, detections, ["cat"])


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_results_of_other_annotations_are_refused(tmp_path, key):
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5, key: 5}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([result]))
    with pytest.raises(ValueError, match=rf"results\.json: {key} must occur in .*truth\.json, got 5"):
        evaluate_coco_json(tmp_path / "truth.json", tmp_path / "results.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda truth, rows: rows[0].update(category_id=True), r"results\.json: results\[0\]: category_id must hold numbers, got True"),
        (lambda truth, rows: rows[0].update(image_id=True), r"results\.json: results\[0\]: image_id must"),
        (lambda truth, rows: rows[0].update(score=True), r"results\.json: results\[0\]: score must"),
        (lambda truth, rows: rows[0]["bbox"].__setitem__(1, False), r"results\.json: results\[0\]: bbox must hold numbers, got \[0, False"),
        (lambda truth, rows: truth["annotations"][0].update(category_id=True), r"truth\.json: annotations\[0\]: category_id must"),
        (lambda truth, rows: truth["annotations"][0]["bbox"].__setitem__(2, True), r"truth\.json: annotations\[0\]: bbox must"),
        (lambda truth, rows: truth["images"][0].update(id=True), r"truth\.json: images\[0\]: id must"),
        (lambda truth, rows: truth["annotations"][0].update(iscrowd=False), None),
    ],
)  # fmt: skip
def test_truth_values_are_no_numbers_in_files(tmp_path, change, message):
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": [annotation]}
    rows = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]
    change(truth, rows)
    for name, content in (("truth", truth), ("results", rows)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = tmp_path / "truth.json", tmp_path / "results.json"
    if message is None:
        assert evaluate_coco_json(*files)["AP"] == pytest.approx(1)
    else:
        with pytest.raises(ValueError, match=message):
            evaluate_coco_json(*files)


def test_results_have_the_form_of_coco_and_are_json():
    detected = detection(3, [[1, 2, 11, 22]], [0.5], [1])
    results = json.loads(json.dumps(detections_to_coco([detected, detection(4)], category_ids=[18, 44])))
    assert results == [{"image_id": 3, "category_id": 44, "bbox": [2.0, 1.0, 20.0, 10.0], "score": 0.5}]
    assert detections_to_coco([detected])[0]["category_id"] == 1
    assert all(math.isfinite(value) for value in results[0]["bbox"])
