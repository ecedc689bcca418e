import logging
from pathlib import Path

import pytest
from PIL import Image

from kfpn.data.annotation_checks import NO_AREA
from kfpn.data.formats.voc import VocSource, split_names

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"


def xml(*objects, size=(30, 20)):
    rows = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, difficult, x0, y0, x1, y1 in objects
    ]
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>\n{shape}\n{''.join(rows)}</annotation>"


@pytest.fixture
def folder(tmp_path):
    tmp_path = tmp_path / "voc"
    for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / part).mkdir(parents=True)
    for name in "abc":
        (tmp_path / "JPEGImages" / f"{name}.txt").touch()
        Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages" / f"{name}.{'png' if name == 'b' else 'jpg'}")
    (tmp_path / "Annotations" / "a.xml").write_text(xml(("dog", 0, 1, 1, 30, 20), ("cat", 1, 5, 6, 10.5, 12)))
    (tmp_path / "Annotations" / "b.xml").write_text(xml(size=None))
    (tmp_path / "Annotations" / "c.xml").write_text(xml(("ant", 0, 2, 2, 9, 9), size=(0, 0)))
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("c  1\n")
    return tmp_path


def test_boxes_become_half_open_and_difficult_objects_become_crowd(folder):
    source = VocSource(folder)
    assert source.sizes.tolist() == [[20, 30], [20, 30]]
    record = source[0]
    assert record.boxes.tolist() == [[0, 0, 20, 30], [5, 4, 12, 10.5]]
    assert record.crowd.tolist() == [False, True]
    assert record.areas.tolist() == [600, 45.5]
    assert source[1].boxes.shape == (0, 4)
    assert source.max_boxes == 2


def test_all_splits_have_the_classes_of_all_annotations(folder):
    train, val = VocSource(folder), VocSource(folder, "val")
    assert train.class_names == val.class_names == ("ant", "cat", "dog")
    assert train.category_ids == (1, 2, 3)
    assert val[0].labels.tolist() == [0]
    assert split_names(folder) == ["train", "val"]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("Annotations/a.xml", "<annotation>\n<object>", r"a\.xml: is not XML: line 2"),
        ("Annotations/a.xml", xml(("dog", 0, 1, "x", 3, 4)), r"a\.xml: ymin must be a number, got 'x'"),
        ("Annotations/a.xml", xml(("", 0, 1, 1, 3, 4)), r"a\.xml: object must have a name"),
        ("Annotations/a.xml", xml(size=(31, 20)), r"a\.jpg is 30 x 20, annotated as 31 x 20"),
        ("Annotations/a.xml", "<annotation><object><name>dog</name></object></annotation>", "'dog' must have a bndbox"),
        (
            "Annotations/a.xml",
            xml(size=("nan", 20)),
            r"a\.xml: height and width must be numbers of pixels, got 20.0 and nan",
        ),
        ("ImageSets/Main/train.txt", "\n", "the split must name at least one image"),
        ("ImageSets/Main/train.txt", "a\na\n", r"train\.txt must be unique, got 'a'"),
        ("ImageSets/Main/train.txt", "a\nzebra\n", r"1 of 2 images do not exist in .*JPEGImages: zebra"),
        ("JPEGImages/a.jpg", "hello", r"1 of 2 images can't be used(.|\n)*a\.jpg is not an image"),
    ],
)
def test_the_error_for_unusable_data_names_the_file(folder, path, text, message):
    (folder / path).write_text(text)
    with pytest.raises(ValueError, match=message):
        VocSource(folder)


def test_a_missing_annotation_split_or_folder_is_named(folder):
    with pytest.raises(ValueError, match=r"vall\.txt does not exist; there are train, val"):
        VocSource(folder, "vall")
    with pytest.raises(ValueError, match=f"did you mean voc:{folder}"):
        VocSource(folder.parent)
    (folder / "Annotations" / "b.xml").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 annotations do not exist: .*b\.xml"):
        VocSource(folder)


def test_a_box_whose_corners_are_one_point_is_left_out_and_one_of_a_pixels_width_is_kept(folder, caplog):
    objects = [
        ("dog", 0, *corners) for corners in ((7, 7, 7, 7), (7, 7, 8, 8), (7, 3, 7, 9), (3, 7, 9, 7), (7, 3, 6, 9))
    ]
    (folder / "Annotations" / "a.xml").write_text(xml(*objects))
    with caplog.at_level(logging.WARNING, "kfpn"):
        boxes = VocSource(folder)[0].boxes
    assert sorted(boxes.tolist()) == sorted([[6, 6, 8, 8], [2, 6, 9, 7], [6, 2, 7, 9]])
    assert [message for message in caplog.messages if f"{NO_AREA}: 2" in message]


@pytest.mark.skipif(not (SHARED / "bccd").is_dir(), reason="needs ../shared/data/bccd")
@pytest.mark.parametrize(
    ("split", "images", "file"), [("train", 205, "BloodImage_00343"), ("val", 87, "BloodImage_00338"), ("test", 72, "")]
)
def test_bccd_has_one_box_without_area_in_train_and_one_in_val(split, images, file, caplog):
    source = VocSource(SHARED / "bccd", split)
    assert len(source) == images
    assert source.class_names == ("Platelets", "RBC", "WBC")
    assert [file in message and f"{NO_AREA}: 1" in message for message in caplog.messages] == [True] * bool(file)
