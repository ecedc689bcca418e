import json

import numpy as np
import pytest
from PIL import Image

from kfpn.config.presets import preset
from kfpn.data.annotation_checks import CLIPPED, NO_AREA
from kfpn.data.box_conventions import odd_pattern, require_pixels_of_boxes
from kfpn.data.class_table import count_classes, describe_source, printable
from kfpn.data.dataset_checks import check_training_set, check_validation_set, rough_measure_line, warn_of_shared_images
from kfpn.data.formats import open_source
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record


def source_of(images, class_names=("cat", "dog"), size=(240, 320)):
    """Returns a source of images whose boxes are given as (label, crowd, y0, x0, y1, x1)."""
    records = []
    for number, rows in enumerate(images):
        table = np.asarray(rows, np.float64).reshape(-1, 6)
        records.append(
            Record(
                np.zeros((*size, 3), np.uint8), number + 1, *size, table[:, 2:].astype(np.float32), table[:, 0].astype(np.int32),
                table[:, 1].astype(bool), np.zeros(len(table), np.float32),
            )
        )  # fmt: skip
    return IterableSource(records, class_names, name="own")


def box(label=0, crowd=0, at=(10, 20, 110, 180)):
    return (label, crowd, *at)


GOOD = [
    [box(0), box(1, at=(100, 150, 220, 300))],
    [box(1, at=(3, 5, 60, 70))],
    [box(0, at=(90, 5, 230, 70))],
    [box(0, 1)],
]


def test_good_data_says_nothing(caplog):
    check_training_set(source_of(GOOD))
    check_validation_set(source_of(GOOD))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ([[], []], "0 boxes in 2 images"),
        ([[box(crowd=1)], [box(1, 1), box(crowd=1)]], r"3 boxes, all of them crowd \(iscrowd, ignore or difficult\)"),
        ([[box(at=(5, 5, 5, 9))], []], "boxes left out: 1, see the warnings above"),
    ],
)
def test_data_without_a_box_to_learn_from_is_refused_for_training_and_warned_of_for_evaluation(images, why, caplog):
    source = source_of(images)
    caplog.clear()
    with pytest.raises(ValueError, match=f"^own: has no box to learn from: {why}. Give it"):
        check_training_set(source)
    check_validation_set(source)
    (record,) = caplog.records
    assert record.message.startswith("own: AP can't be measured on it, there is no object to find: ")


def test_a_class_that_no_one_has_is_named(caplog):
    names = ["cat", *(f"class {i}" for i in range(9)), "dog"]
    check_training_set(source_of([[box()], [box(10, at=(1, 1, 70, 80))]], names))
    check_validation_set(source_of([[box()], [box(1, at=(1, 1, 70, 80))]], ["cat", "dog", "b\nird"]))
    assert [record.message for record in caplog.records] == [
        "own: classes without an object to learn from: 9 of 11 (class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7 "
        "and 1 more)",
        r"own: classes without an object, whose AP can't be measured: 1 of 3 (b\nird)",
    ]


def test_images_without_boxes_are_counted_when_they_are_most(caplog):
    check_training_set(source_of([[box(), box(1)], [], [], []]))
    check_training_set(source_of([[box(), box(1)], [box()], [], []]))
    assert [record.message for record in caplog.records] == ["own: images without a box: 3 of 4"]


@pytest.mark.parametrize(
    ("boxes", "wanted"),
    [
        ([[10, 20, 30, 40]] * 5, "all 5 boxes are the same one, x 20..40, y 10..30"),
        ([[i, 2 * i, 20 + i, 30 + i] for i in range(6)], "all 6 boxes lie in the upper left corner"),
        ([[400 + i, 500 + i, 450 + i, 600] for i in range(6)], "all 6 boxes lie in the lower right corner"),
        ([[10 * i, 5 * i, 10 * i + 30, 5 * i + 80] for i in range(5)], "do they hold percents of the sides"),
        ([[10 * i, 5 * i, 10 * i + 30, 5 * i + 380] for i in range(5)], None),
        ([[10, 20, 30, 40]] * 3, None),
        ([], None),
    ],
)
def test_patterns_that_no_one_means_are_named(boxes, wanted):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    found = odd_pattern(boxes, np.tile([480, 640], (len(boxes), 1)))
    assert found is None if wanted is None else wanted in found


def test_a_pattern_and_boxes_past_the_border_are_warned_of(caplog):
    check_training_set(source_of([[box()], [box()], [box(1)], [box()]]))
    past = source_of([[box(i % 2, at=(20 * i, 30 * i, 400, 500))] for i in range(5)])
    assert past.fault_counts[CLIPPED][0] == 5
    caplog.clear()
    check_training_set(past)
    assert "own: 5 boxes reach outside their images, more than half of them" in caplog.text


SHARES = [[(0, 0, 0.1, 0.2, 0.5, 0.6)], [(1, 0, 0.0, 0.0, 1.0, 1.0)]]


def test_boxes_as_shares_of_the_sides_are_refused_by_every_source():
    with pytest.raises(
        ValueError, match=r"^own: boxes must be in pixels, got 2 of 2 that lie in 0\.\.1: they look like shares"
    ):
        source_of(SHARES)
    source_of(SHARES, size=(8, 8))  # images so small that boxes of a pixel may be meant
    source_of([*SHARES, [box()]])


def test_of_a_single_box_in_the_first_pixel_is_warned_only(caplog):
    source_of([[(1, 0, 0.0, 0.0, 1.0, 1.0)]])
    assert any("1 of 1 that lie in 0..1: they look like shares" in message for message in caplog.messages)


def test_shares_among_which_a_few_boxes_are_not_are_refused_as_well():
    shares = [[(0, 0, 0.1, 0.2, 0.5, 0.6)] for _ in range(30)]
    with pytest.raises(ValueError, match=r"got 30 of 31 that lie in 0\.\.0\.6"):
        source_of([*shares, [box()]])


def test_boxes_as_shares_are_refused_in_coco_and_voc(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    for name in ("Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "JPEGImages" / "a.jpg")
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "cat"}],
               "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.25, 0.25, 0.5, 0.5]}]}  # fmt: skip
    content["annotations"].append({"id": 2, "image_id": 1, "category_id": 1, "bbox": [0.0, 0.5, 0.5, 0.5]})
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    one = "<object><name>cat</name><bndbox><xmin>0.25</xmin><ymin>0.25</ymin><xmax>0.75</xmax><ymax>0.75</ymax></bndbox></object>"
    (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{2 * one}</annotation>")
    for data in (f"coco:{tmp_path}/a.json,{tmp_path}/JPEGImages", f"voc:{tmp_path}"):
        with pytest.raises(ValueError, match="boxes must be in pixels, got 2 of 2 that lie in 0"):
            open_source(data)
    require_pixels_of_boxes("it", np.zeros((0, 4)), np.ones((1, 2)))


def test_a_coco_file_with_corners_in_place_of_sizes_is_refused(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    corners = [[30, 20, 60, 40], [40, 5, 50, 45], [2, 30, 20, 46], [33, 25, 63, 47]]
    rows = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(corners)]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": rows,
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="bbox must be x, y, width, height, got what looks like x1, y1, x2, y2"):
        open_source(f"coco:{tmp_path}/a.json")


def test_the_table_counts_objects_crowd_and_images_of_each_class_and_what_was_left_out():
    source = source_of(
        [[box(0), box(0, at=(1, 1, 9, 9)), box(1, 1)], [], [box(1), box(0, at=(5, 5, 5, 5))]], ("猫", "a dog")
    )
    counts = count_classes(source)
    assert [part.tolist() for part in counts[:3]] == [[2, 1], [0, 1], [1, 1]]
    assert counts.empty_images == 1
    assert describe_source(source).splitlines() == [
        "own: 3 images of 320 x 240 pixels, 2 classes, 3 objects and 1 of crowd; images without a box: 1",
        "  class    objects    crowd    images",
        "  猫             2        0         1",
        "  a dog          1        1         1",
        f"  {NO_AREA}: 1 (first: record 2)",
    ]


@pytest.mark.parametrize("classes", [80, 1203])
def test_of_many_classes_the_most_and_the_least_are_shown(classes):
    images = [[box(label, at=(i, i, i + 9, i + 9)) for label in range(classes - i)] for i in range(4)]
    lines = describe_source(source_of(images, [f"class {label}" for label in range(classes)])).splitlines()
    assert len(lines) == 1 + 1 + 14 + 1 + 6
    assert lines[2].split()[:3] == ["class", "0", "4"]
    assert lines[16] == f"  … and {classes - 20:,} more, with 4 to 4 objects"
    assert lines[-1].split()[:3] == ["class", str(classes - 1), "1"]


def test_sizes_that_differ_are_given_as_ranges_and_a_source_of_ones_own_is_counted():
    shapes = open_source("shapes,test")
    assert describe_source(shapes).startswith(f"{shapes.name}: {len(shapes):,} images of ")
    check_training_set(shapes)
    assert printable("x" * 50) == "x" * 39 + "…"


def test_the_collected_cases_are_refused_as_training_data(shared, tmp_path):
    from kfpn.training.run_data import open_run_data

    for name, why in (("no-boxes", "0 boxes in 4 images"), ("all-crowd", "8 boxes, all of them crowd")):
        place = shared(f"cases/04-nothing-to-learn/{name}")
        with pytest.raises(ValueError, match=f"has no box to learn from: {why}"):
            open_run_data(preset("shapes"), f"coco:{place}/a.json,{place}/images", None)


def test_images_that_are_trained_on_and_evaluated_on_are_counted(tmp_path, caplog):
    (tmp_path / "images/val").mkdir(parents=True)
    for name in ("a.png", "b.png", "val/c.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / name)
        (tmp_path / f"labels/{name}").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labels/{name}").with_suffix(".txt").write_text("0 .5 .5 .4 .4\n")
    data = tmp_path / "data.yaml"
    data.write_text("train: images\nval: images/val\nnames: [cat]\n")
    training, validation = open_source(f"yolo:{data}"), open_source(f"yolo:{data},val")
    caplog.clear()
    warn_of_shared_images(training, validation)
    (record,) = caplog.records
    assert f"images that are training images too: 1 of 1 (first: {tmp_path}/images/val/c.png)" in record.message
    caplog.clear()
    warn_of_shared_images(training.part(np.array([0, 1]), "others"), validation)
    assert caplog.records == []


def test_ap_on_few_images_is_called_a_rough_guess():
    rough = "images: with fewer than 30 it is a rough guess; "
    assert rough_measure_line(8, 80) == f"AP is measured on 8 {rough}--val-share 0.38 keeps 30 of the 80 images for it"
    assert (
        rough_measure_line(29, 290) == f"AP is measured on 29 {rough}--val-share 0.11 keeps 32 of the 290 images for it"
    )
    assert rough_measure_line(6, 59).endswith(
        f"{rough}half of the 59 images are not enough either, so more photographs are needed"
    )
    assert rough_measure_line(5) == f"AP is measured on 5 {rough}--val-data names more"
    assert rough_measure_line(30, 300) == rough_measure_line(30) == ""
