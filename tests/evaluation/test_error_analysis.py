import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record
from kfpn.evaluation.ap_by_property import ap_by_properties
from kfpn.evaluation.coco_figures import FIGURES, coco_evaluation, evaluate_coco
from kfpn.evaluation.coco_rows import detections_to_coco, ground_truth, masked
from kfpn.evaluation.error_analysis import analyse_errors
from kfpn.evaluation.fast_matching import matched_evaluation
from kfpn.evaluation.image_errors import error_sentences, errors_of_image

NAMES = ("cat", "dog")
BOX, OTHER = [0, 0, 20, 20], [50, 50, 90, 90]


def record(*objects, image_id=0, crowd=()):
    """Returns an image of 100 x 100 pixels with objects (box, label); `crowd` are the rows of crowd regions."""
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return Record(
        np.zeros((100, 100, 3), np.uint8), image_id, 100, 100, boxes, np.array([label for _, label in objects], np.int32),
        np.isin(np.arange(len(objects)), crowd), sides.prod(1).astype(np.float32),
    )  # fmt: skip


def detected(*rows, image_id=0):
    """Returns detections of rows (box, label, score)."""
    return {
        "image_id": image_id,
        "boxes": np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        "labels": np.array([row[1] for row in rows], np.int32),
        "scores": np.array([row[2] for row in rows], np.float32),
    }


def kinds(image, detections, min_score=0.0):
    return sorted(error.kind for error in errors_of_image(image, detections, min_score).errors)


def analysed(images, detections, **options):
    return analyse_errors(ground_truth(images, NAMES), detections, **options)


def test_each_kind_of_error_has_its_name():
    image = record((BOX, 0))
    assert kinds(image, detected((BOX, 0, 0.9))) == []
    assert kinds(image, detected()) == ["missed"]
    assert kinds(image, detected((BOX, 1, 0.9))) == ["class"]
    assert kinds(image, detected(([0, 0, 20, 9], 0, 0.9))) == ["place"]
    assert kinds(image, detected((BOX, 0, 0.9), (BOX, 0, 0.8))) == ["duplicate"]
    assert kinds(image, detected((BOX, 0, 0.9), (OTHER, 0, 0.8))) == ["background"]
    assert kinds(image, detected((BOX, 0, 0.9), ([0, 0, 20, 9], 1, 0.8))) == ["both"]
    assert kinds(image, detected((OTHER, 0, 0.9))) == ["background", "missed"]


def test_detections_below_the_least_score_are_not_there():
    assert kinds(record((BOX, 0)), detected((BOX, 0, 0.4), (OTHER, 1, 0.3)), min_score=0.5) == ["missed"]


def test_detections_on_a_crowd_are_no_errors_and_a_crowd_is_not_missed():
    image = record((BOX, 0), (OTHER, 0), crowd=[1])
    assert kinds(image, detected((BOX, 0, 0.9), ([60, 60, 70, 70], 0, 0.8), ([70, 70, 90, 90], 0, 0.7))) == []
    assert kinds(image, detected((BOX, 0, 0.9))) == []


def test_an_image_weighs_its_missed_objects_and_the_scores_of_its_wrong_detections():
    errors = errors_of_image(record((BOX, 0), (OTHER, 1)), detected(([0, 50, 20, 70], 0, 0.75)), 0.5)
    assert (errors.weight, errors.right, errors.main_kind) == (2.75, 0, "missed")
    errors = errors_of_image(record(), detected(), 0.5)
    assert (errors.weight, errors.right, errors.main_kind) == (0, 0, "none")


def test_errors_are_said_in_words_the_heaviest_first():
    image = record((BOX, 0), (OTHER, 1))
    errors = errors_of_image(image, detected((BOX, 1, 0.9), ([0, 60, 9, 69], 0, 0.6)), 0.5).errors
    assert error_sentences(errors, NAMES) == [
        "missed dog (40 x 40 pixels)",
        "cat taken for dog (90%)",
        "cat where there is none (60%)",
    ]
    assert error_sentences((), NAMES) == []


def test_a_detection_of_score_0_weighs_nothing():
    errors = errors_of_image(record((BOX, 0)), detected((OTHER, 1, 0.0), ([0, 60, 9, 69], 0, 0.6), (BOX, 0, 0.5)), 0.0)
    assert (errors.weight, errors.right) == (pytest.approx(0.6), 1)
    assert error_sentences(errors.errors, NAMES) == ["cat where there is none (60%)", "dog where there is none (0%)"]


def test_errors_are_counted_and_what_mending_them_gives_is_said():
    # Two cats, of which one is found and one missed: AP50 of the cat is 51 of 101 points, and mending the miss gives the rest.
    images = [record((BOX, 0), image_id=0), record((BOX, 0), image_id=1)]
    analysis = analysed(images, [detected((BOX, 0, 0.9))])
    errors = {error.kind: error for error in analysis.errors}
    assert {kind: error.count for kind, error in errors.items() if error.count} == {"missed": 1}
    assert analysis.ap50 == pytest.approx(51 / 101)
    assert errors["missed"].gain == pytest.approx(1 - 51 / 101)
    assert [one.objects for one in analysis.classes] == [2, 0]
    assert analysis.classes[1].ap is None


def test_the_confusion_matrix_has_the_background_last_and_leaves_low_scores_out():
    image = record((BOX, 0), (OTHER, 1))
    detections = [detected((BOX, 1, 0.9), ([0, 60, 9, 69], 0, 0.8), ([30, 0, 40, 10], 0, 0.1))]
    assert analysed([image], detections).confusion.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert analysed([image], detections, min_score=0.0).confusion.tolist() == [[0, 1, 0], [0, 0, 1], [2, 0, 0]]


def test_scores_are_compared_with_the_share_that_is_right():
    analysis = analysed([record((BOX, 0))], [detected((BOX, 0, 0.75), (OTHER, 0, 0.75), ([0, 60, 9, 69], 0, 0.25))])
    rows = [(one.count, one.score, one.right) for one in analysis.calibration if one.count]
    assert rows == [(1, 0.25, 0.0), (2, 0.75, 0.5)]
    assert analysis.calibration_error == pytest.approx(0.25)


def test_ap_by_size_aspect_ratio_and_crowding_knows_its_objects():
    wide = [70, 0, 90, 100]
    images = [record((BOX, 0), image_id=0), record((BOX, 0), (wide, 0), image_id=1)]
    detections = [detected((BOX, 0, 0.9), image_id=0), detected((BOX, 0, 0.8), image_id=1)]
    results = detections_to_coco(detections)
    size, ratio, crowding = ap_by_properties(ground_truth(images, NAMES), results, "bbox", 100).values()
    assert [(row.name, row.objects, row.ap) for row in ratio] == [
        ("about square, up to 3 : 2", 2, pytest.approx(1)), ("wider than 3 : 1", 1, 0),
    ]  # fmt: skip
    assert [(row.name, row.objects, row.ap) for row in size] == [("16 to 32", 2, pytest.approx(1)), ("32 to 64", 1, 0)]
    assert [(row.name, row.objects, row.ap50) for row in crowding] == [
        ("1", 1, pytest.approx(1)), ("2 to 4", 2, pytest.approx(51 / 101)),
    ]  # fmt: skip


def test_a_limit_above_coco_s_hundred_counts_all_detections():
    boxes = [[10 * row, 10 * column, 10 * row + 9, 10 * column + 9] for row in range(10) for column in range(10)]
    boxes += [[10 * row, 10 * column, 10 * row + 5, 10 * column + 9] for row in range(5) for column in range(10)]
    image = record(*((box, 0) for box in boxes))
    found = [detected(*((box, 0, 0.9) for box in boxes))]
    assert analysed([image], found, limit=150).ap == pytest.approx(1)
    assert analysed([image], found).ap < 0.7
    assert analysed([image], found, limit=150).ap == evaluate_coco([image], found, NAMES, 150)["AP@150"]


def test_data_without_an_object_are_refused():
    with pytest.raises(ValueError, match="data must have objects to find, got none in 1 images"):
        analysed([record((BOX, 0), crowd=[0])], [detected((BOX, 0, 0.9))])


def test_no_detection_at_all_is_a_report_of_missed_objects():
    analysis = analysed([record((BOX, 0))], [detected()])
    assert {error.kind: error.count for error in analysis.errors if error.count} == {"missed": 1}
    assert (analysis.ap, analysis.confusion.tolist()) == (0.0, [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def known(shared, kind):
    folder = shared("data/known_coco")
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / f"instances_val2014_fake{kind}100_results.json").read_text())
    return truth, results


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_figures_are_those_of_pycocotools(shared, kind, capsys):
    truth, results = known(shared, kind)
    if kind == "segm":
        results = [{"bbox": [0, 0, 1, 1], **row} for row in results]
    ours = matched_evaluation(truth, results, kind)
    theirs = coco_evaluation(truth, results, kind)
    for step in (theirs.evaluate, theirs.accumulate, theirs.summarize, ours.summarize):
        step()
    # The means of the two may add up in another order, which NumPy 1 rounds otherwise in the last bit.
    expected = dict(zip(FIGURES, theirs.stats, strict=True))
    assert dict(zip(FIGURES, ours.stats, strict=True)) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(ours.eval["precision"], theirs.eval["precision"])
    capsys.readouterr()


def test_kinds_of_errors_of_images_add_up_to_those_of_the_whole(shared):
    truth, results = known(shared, "bbox")
    labels = {row["id"]: label for label, row in enumerate(truth["categories"])}
    names = [row["name"] for row in truth["categories"]]
    images = []
    for image in truth["images"]:
        own = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        x, y, w, h = np.array([one["bbox"] for one in own], np.float32).reshape(-1, 4).T
        images.append(
            Record(
                "", image["id"], image["height"], image["width"], np.stack([y, x, y + h, x + w], 1),
                np.array([labels[one["category_id"]] for one in own], np.int32), np.array([one["iscrowd"] for one in own], bool),
                np.array([one["area"] for one in own], np.float32),
            )
        )  # fmt: skip
    found = []
    for image in images:
        own = [row for row in results if row["image_id"] == image.image_id]
        x, y, w, h = np.array([row["bbox"] for row in own], np.float64).reshape(-1, 4).T
        found.append(
            {
                "image_id": image.image_id,
                "boxes": np.stack([y, x, y + h, x + w], 1),
                "labels": np.array([labels[row["category_id"]] for row in own], np.int32),
                "scores": np.array([row["score"] for row in own]),
            }
        )
    analysis = analyse_errors(ground_truth(images, names), found)
    counts = dict.fromkeys((error.kind for error in analysis.errors), 0)
    for image, detections in zip(images, found, strict=True):
        for error in errors_of_image(image, detections, 0.0).errors:
            counts[error.kind] += 1
    assert counts == {error.kind: error.count for error in analysis.errors}


def test_masks_are_analysed_by_their_masks():
    bitmap = np.zeros((100, 100), np.uint8, order="F")
    bitmap[:20, :20] = 1
    square = {"size": [100, 100], "counts": coco_mask.encode(bitmap)["counts"].decode()}
    half = np.zeros((100, 100), np.uint8, order="F")
    half[:20, :8] = 1
    part = {"size": [100, 100], "counts": coco_mask.encode(half)["counts"].decode()}
    truth = ground_truth([record((BOX, 0))], NAMES)
    truth["annotations"][0]["segmentation"] = square
    segmentations = np.empty(1, object)
    segmentations[0] = part
    detections = [{**detected((BOX, 0, 0.9)), "segmentations": segmentations}]
    assert analyse_errors(truth, detections).ap50 == pytest.approx(1)
    of_masks = analyse_errors(truth, detections, "segm")
    assert {error.kind: error.count for error in of_masks.errors if error.count} == {"place": 1}
    assert masked(truth)["annotations"][0]["iscrowd"] == 0


def test_a_source_of_one_s_own_is_taken():
    source = IterableSource([record((BOX, 0))], NAMES, name="pets")
    assert analysed(source, [detected((BOX, 0, 0.9))]).ap == pytest.approx(1)
