"""Fields of annotations that are spelt otherwise than their format spells them, or that are there twice."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from kfpn.data.field_names import misspelt_flags, other_spellings
from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.csv_boxes import CsvSource
from kfpn.data.formats.voc import VocSource
from kfpn.data.formats.yolo import YoloSource


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    return tmp_path


def coco(folder, text):
    (folder / "a.json").write_text(text)
    return CocoSource(folder / "a.json")


def coco_text(**fields):
    first = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 5]} | fields
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [first, {"id": 8, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
            "categories": [{"id": 1, "name": "cat"}],
        }
    )


def voc(folder, fields="", box="<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>", head=""):
    item = f"<object><name>cat</name>{fields}<bndbox>{box}</bndbox></object>"
    (folder / "a.xml").write_text(f"<annotation>{head}{item}</annotation>")
    return VocSource(folder)


@pytest.mark.parametrize(
    "name", ["is_crowd", "isCrowd", "crowd", "Iscrowd", "IS-CROWD", "Ignore", "ignored", "isDifficult"]
)
@pytest.mark.parametrize(("value", "crowd"), [(1, True), ("0", False), (True, True), (None, False)])
def test_a_flag_of_coco_in_another_spelling_is_taken_and_said(folder, caplog, name, value, crowd):
    source = coco(folder, coco_text(**{name: value}))
    assert source[0].crowd.tolist() == [crowd, False]
    assert re.search(rf"fields called '{name}', taken as '\w+': 1 \(first: annotations\[0\]\)", caplog.text)


@pytest.mark.parametrize("name", ["Difficult", "DIFFICULT", "isDifficult", "ignored", "Ignore", "is_crowd", "crowd"])
@pytest.mark.parametrize(("value", "crowd"), [("1", True), ("0", False), ("yes", True), ("", False)])
def test_a_flag_of_voc_in_another_spelling_is_taken_and_said(folder, caplog, name, value, crowd):
    source = voc(folder, f"<{name}>{value}</{name}>")
    assert source[0].crowd.tolist() == [crowd]
    assert re.search(rf"fields called '{name}', taken as '\w+': 1 \(first: .*a\.xml\)", caplog.text)


@pytest.mark.parametrize("name", ["crowd", "is_crowd", "isDifficult", "is_ignored", "Ignored"])
def test_a_flag_of_a_table_has_the_same_spellings(folder, name):
    (folder / "a.csv").write_text(f"image,x1,y1,x2,y2,class,{name}\na.png,1,1,9,9,cat,1\na.png,2,2,9,9,cat,0\n")
    assert CsvSource(folder / "a.csv")[0].crowd.tolist() == [True, False]


def test_a_flag_that_is_nearly_spelt_is_not_read_and_said(folder, caplog):
    assert not coco(folder, coco_text(iscrowed=1))[0].crowd.any()
    assert "fields called 'iscrowed', not read: if 'iscrowd' is meant, rename them: 1" in caplog.text
    assert not voc(folder, "<dificult>1</dificult>")[0].crowd.any()
    assert "fields called 'dificult', not read: if 'difficult' is meant, rename them: 1" in caplog.text


def test_fields_of_other_meaning_are_left_alone():
    names = [
        "date_captured",
        "coco_url",
        "num_keypoints",
        "attributes",
        "isfake",
        "truncated",
        "occluded",
        "pose",
        "id",
    ]
    known = ("iscrowd", "ignore", "difficult", "area", "bbox", "id")
    assert not other_spellings(names, known)
    assert not misspelt_flags(names, known)


def test_other_fields_of_another_spelling_are_taken_and_said(folder, caplog):
    content = json.loads(coco_text(Area=33))
    content["images"][0]["Width"] = 31
    with pytest.raises(ValueError, match=r"a\.png is 30 x 20, annotated as 31 x"):
        coco(folder, json.dumps(content))
    assert coco(folder, coco_text(Area=33))[0].areas.tolist() == [33, 81]
    assert "fields called 'Area', taken as 'area': 1" in caplog.text
    with pytest.raises(ValueError, match="annotated as 31 x"):
        voc(folder, head="<Size><WIDTH>31</WIDTH></Size>")


def test_objects_of_voc_in_capitals_are_objects(folder, caplog):
    (folder / "a.xml").write_text(
        "<Annotation><Object><Name>cat</Name><BndBox><XMin>2</XMin><y_min>3</y_min><xmax>9</xmax><ymax>9</ymax></BndBox></Object></Annotation>"
    )
    source = VocSource(folder)
    assert source[0].boxes.tolist() == [[2, 1, 9, 9]]
    assert "fields called 'Object', taken as 'object': 1" in caplog.text


@pytest.mark.parametrize("text", ["maybe", "2"])
def test_a_flag_in_another_spelling_that_is_none_is_refused_by_its_own_name(folder, text):
    with pytest.raises(
        ValueError, match=r"annotations\[0\]: 'isCrowd', taken as 'iscrowd', must be 0, 1, true or false"
    ):
        coco(folder, coco_text(isCrowd=text))
    with pytest.raises(ValueError, match=r"a\.xml: <isCrowd>, taken as <iscrowd>, must be 0, 1, true or false"):
        voc(folder, f"<isCrowd>{text}</isCrowd>")


def test_two_spellings_of_one_field_must_agree(folder):
    assert coco(folder, coco_text(iscrowd=1, isCrowd=1))[0].crowd.tolist() == [True, False]
    with pytest.raises(
        ValueError, match=r"annotations\[0\] must have one of 'iscrowd' and 'isCrowd', got 0 and 1: remove one"
    ):
        coco(folder, coco_text(iscrowd=0, isCrowd=1))


@pytest.mark.parametrize(
    ("fields", "head", "message"),
    [
        ("<name>dog</name>", "", r"object 'cat' must have one <name>, got 2: remove one"),
        ("<difficult>0</difficult><difficult>1</difficult>", "", r"object 'cat' must have one <difficult>, got 2"),
        ("<difficult>0</difficult><Difficult>1</Difficult>", "", r"object 'cat' must have one <difficult>, got 2"),
        ("<bndbox><xmin>1</xmin></bndbox>", "", r"object 'cat' must have one <bndbox>, got 2"),
        ("", "<filename>a.png</filename><filename>b.png</filename>", r"<annotation> must have one <filename>, got 2"),
        ("", "<size><width>30</width><width>31</width></size>", r"<size> must have one <width>, got 2"),
    ],
)
def test_what_voc_says_twice_is_refused_with_the_file(folder, fields, head, message):
    with pytest.raises(ValueError, match=rf"a\.xml: {message}"):
        voc(folder, fields, head=head)


def test_a_corner_that_is_there_twice_is_refused(folder):
    with pytest.raises(ValueError, match=r"a\.xml: <bndbox> must have one <xmin>, got 2"):
        voc(folder, box="<xmin>1</xmin><xmin>2</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>")


def test_the_parts_of_a_person_have_names_and_boxes_of_their_own(folder, caplog):
    part = "<part><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    assert voc(folder, part.format("head") + part.format("hand"))[0].boxes.tolist() == [[0, 0, 9, 9]]
    assert "taken as" not in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"bbox": [1, 2, 10, 5]',
            '"bbox": [1, 2, 10, 5], "bbox": [1, 2, 10, 6]',
            "'bbox' twice of the object with id 7",
        ),
        ('"image_id": 1', '"image_id": 1, "image_id": 2', "'image_id' twice of the object with id 7"),
        ('"images"', '"annotations": [], "images"', "'annotations' twice"),
        ('"categories"', '"categories": [], "categories"', "'categories' twice"),
    ],
)
def test_a_key_that_is_there_twice_with_two_values_is_refused(folder, old, new, message):
    with pytest.raises(ValueError, match=rf"a\.json: each key must be there once, got {message}: remove one"):
        coco(folder, coco_text().replace(old, new, 1))


def test_a_key_that_is_there_twice_with_one_value_or_is_not_read_is_no_fault(folder):
    text = coco_text(extra=1).replace('"extra": 1', '"extra": 1, "extra": 2, "id": 7')
    assert len(coco(folder, text)[0].boxes) == 2


@pytest.mark.parametrize("name", ["None", "nan", "NULL"])
def test_a_missing_class_of_a_box_is_no_class_of_that_name(folder, caplog, name):
    (folder / "a.csv").write_text(f"image,x1,y1,x2,y2,class\na.png,1,1,9,9,cat\na.png,2,2,9,9,{name}\n")
    with pytest.raises(ValueError, match=rf"line 3: class must be a name, got '{name}' for a box, which tools write"):
        CsvSource(folder / "a.csv")
    coco(folder, coco_text().replace('"cat"', f'"{name}"'))
    assert f"classes called what tools write where a name is missing: 1 ('{name}')" in caplog.text


def yolo(root, lines, names="[cat, dog]"):
    for part in ("images", "labels"):
        (root / part / "train").mkdir(parents=True)
    Image.new("RGB", (400, 200)).save(root / "images" / "train" / "a.png")
    (root / "labels" / "train" / "a.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    return YoloSource(root / "data.yaml")


def test_classes_that_count_from_one_are_said_to(tmp_path):
    with pytest.raises(
        ValueError, match=r"got 2: classes count from 0, and no 0 came before, so these look counted from 1"
    ):
        yolo(tmp_path, ["1 0.5 0.5 0.25 0.5", "2 0.5 0.5 0.25 0.4"])


def test_one_class_beyond_the_others_is_not_said_to_count_from_one(tmp_path):
    with pytest.raises(ValueError, match=r"got 2: correct it, or add the name there"):
        yolo(tmp_path, ["0 0.5 0.5 0.25 0.5", "2 0.5 0.5 0.25 0.4"])


def small_boxes(count):
    chance = np.random.default_rng(0)
    first = chance.uniform(0.1, 0.6, (count, 2))
    return first, first + chance.uniform(0.01, 0.05, (count, 2))


def label_lines(first, second):
    return ["0 " + " ".join(f"{value:.6f}" for value in row) for row in np.concatenate([first, second], axis=1)]


def test_corners_of_small_boxes_that_stay_in_the_image_as_centres_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="got 30 boxes that look like x1, y1, x2, y2: the third number is a little larger"
    ):
        yolo(tmp_path, label_lines(*small_boxes(30)))


def test_a_few_such_corners_are_warned_of(tmp_path, caplog):
    assert len(yolo(tmp_path, label_lines(*small_boxes(6)))[0].boxes) == 6
    assert "got 6 boxes that look like x1, y1, x2, y2: the third number is a little larger" in caplog.text


def test_large_and_whole_images_are_centres_without_a_word(tmp_path, caplog):
    chance = np.random.default_rng(0)
    size = chance.uniform(0.6, 1.0, (40, 2))
    centre = size / 2 + chance.uniform(0, 1, (40, 2)) * (1 - size)
    size[:10], centre[:10] = 1.0, 0.5
    assert (size > centre).all()
    assert len(yolo(tmp_path, label_lines(centre, size))[0].boxes) == 31
    assert "look like" not in caplog.text
