import contextlib
import io

import numpy as np
import pytest

from kfpn.data.formats import open_source
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.object_counts import objects_of_images
from kfpn.data.record import Record
from kfpn.evaluation.coco_figures import FIGURES, coco_evaluation, detections_to_coco, evaluate_coco, ground_truth
from kfpn.evaluation.detect import evaluate_detections
from kfpn.evaluation.detection_limit import deciding_figure, images_at_limit, limit_line, own_limit_figures

OWN = ("AP@500", "AP50@500", "AP75@500", "AR@500")


def grid(count, side=10.0, step=12.0):
    """Returns boxes (count, 4) yxyx that do not touch."""
    rows, columns = np.divmod(np.arange(count), 40)
    corners = np.stack([rows, columns], axis=1) * step
    return np.concatenate([corners, corners + side], axis=1).astype(np.float32)


def crowded(image_id, count, labels=None, crowd=None):
    boxes = grid(count)
    return Record(
        np.zeros((500, 500, 3), np.uint8), image_id, 500, 500, boxes,
        np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32),
        np.zeros(count, bool) if crowd is None else np.asarray(crowd, bool),
        np.full(count, 100, np.float32), f"{image_id}",
    )  # fmt: skip


def found(record, count):
    """Returns the first boxes of a record as detections, the first one the best."""
    scores = np.linspace(1.0, 0.5, count).astype(np.float32)
    return {
        "image_id": record.image_id,
        "boxes": record.boxes[:count],
        "scores": scores,
        "labels": record.labels[:count],
    }


def of_pycocotools(records, detections, names):
    """Returns COCO's figures by pycocotools alone, as it is."""
    evaluation = coco_evaluation(ground_truth(records, names), detections_to_coco(detections))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) if value >= 0 else None for value in evaluation.stats]


def test_above_100_detections_the_own_limit_is_measured_beside_cocos():
    record = crowded(1, 150)
    figures = evaluate_coco([record], [found(record, 150)], ["cell"], limit=500)
    # 100 of 150 objects: precision is 1 up to a recall of .66, which is 67 of COCO's 101 recalls.
    assert figures["AP"] == pytest.approx(67 / 101)
    assert figures["AR100"] == pytest.approx(100 / 150)
    assert [figures[name] for name in OWN] == pytest.approx([1.0] * 4)
    assert figures["per_class"] == {"cell": pytest.approx(67 / 101)}


def test_the_own_limit_itself_cuts():
    record = crowded(1, 150)
    figures = evaluate_coco([record], [found(record, 150)], ["cell"], limit=120)
    assert figures["AR@120"] == pytest.approx(120 / 150)
    assert figures["AP50@120"] == pytest.approx(81 / 101)


@pytest.mark.parametrize("limit", [101, 500, 3000])
def test_cocos_figures_stay_those_of_pycocotools(limit):
    rng = np.random.default_rng(0)
    records = [crowded(i, 130 + i, rng.integers(0, 2, 130 + i), rng.random(130 + i) < 0.1) for i in range(3)]
    detections = []
    for record in records:
        own = found(record, len(record.boxes))
        boxes = own["boxes"] + rng.normal(0, 1.5, own["boxes"].shape).astype(np.float32)
        detections.append(own | {"boxes": boxes, "scores": rng.random(len(boxes)).astype(np.float32)})
    figures = evaluate_coco(records, detections, ["a", "b"], limit)
    assert [figures[name] for name in FIGURES] == of_pycocotools(records, detections, ["a", "b"])
    assert own_limit_figures(figures) == tuple(f"{name}@{limit}" for name in ("AP", "AP50", "AP75", "AR"))


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_up_to_100_detections_there_are_cocos_figures_alone(limit):
    record = crowded(1, 3)
    assert set(evaluate_coco([record], [found(record, 3)], ["cell"], limit)) == {*FIGURES, "per_class"}


def test_without_ground_truth_the_own_figures_are_none_too():
    figures = evaluate_coco([crowded(1, 0)], [], ["cell"], limit=500)
    assert [figures[name] for name in OWN] == [None] * 4
    assert [evaluate_coco([], [], ["cell"], limit=500)[name] for name in OWN] == [None] * 4


def test_images_with_all_the_detections_that_the_limit_allows_are_counted():
    records = [crowded(0, 150), crowded(1, 3)]
    detections = [found(records[0], 120), found(records[1], 3)]
    assert images_at_limit(detections, 120) == 1
    assert images_at_limit(detections, 121) == 0


def test_detections_of_classes_that_the_data_lacks_count_for_the_limit():
    record = crowded(0, 120, np.arange(120) % 2)
    source = IterableSource([crowded(0, 3)], ("cell",), name="cells")
    _, own = evaluate_detections(source, ("cell", "dust"), [found(record, 120)])
    assert len(own[0]["scores"]) == 60
    assert images_at_limit(own, 120) == 1


def test_the_line_names_images_limit_and_option():
    assert limit_line(6, 78, 100, "--model.max-detections") == (
        "cut by model.max_detections: 6 of 78 images have all the 100 detections that it allows; --model.max-detections "
        "allows more"
    )


def test_weights_are_compared_at_the_own_limit_where_an_image_has_more_than_100_objects_of_a_class():
    def source(*counts, **labels):
        return IterableSource([crowded(i, n, **labels) for i, n in enumerate(counts)], ("a", "b"), name="cells")

    assert deciding_figure(source(3, 101), 500) == "AP@500"
    assert deciding_figure(source(3, 101), 100) == "AP"
    assert deciding_figure(source(3, 100), 500) == "AP"
    assert deciding_figure(source(120, labels=np.arange(120) % 2), 500) == "AP"  # 60 of each class
    assert deciding_figure(source(120, crowd=np.arange(120) < 20), 500) == "AP"


def test_objects_of_images_are_counted_in_annotations_and_in_records_alike(shared):
    source = open_source(f"coco:{shared('data/mush')}/valid/_annotations.coco.json,{shared('data/mush')}/valid")
    read = [source[i] for i in range(len(source))]  # is a source of one's own as far as counting goes
    for own, other in zip(objects_of_images(source), objects_of_images(read), strict=True):
        assert own.tolist() == other.tolist()
    assert objects_of_images(source)[0].sum() == 702


def test_on_crowded_photographs_the_own_limit_finds_what_cocos_can_not(shared):
    place = shared("data/mush") / "test"
    source = open_source(f"coco:{place}/_annotations.coco.json,{place}")
    records = [source[i] for i in range(len(source))]
    detections = [found(record, len(record.boxes)) for record in records]
    figures = evaluate_coco(records, detections, source.class_names, limit=500)
    assert [figures[name] for name in FIGURES] == of_pycocotools(records, detections, source.class_names)
    assert figures["AR100"] < 0.6
    assert [figures[name] for name in OWN] == pytest.approx([1.0] * 4)
    assert deciding_figure(source, 500) == "AP@500"
