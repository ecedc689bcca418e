"""COCO files as tools write them: types of fields, group categories, encodings, file names of other machines."""

import json
import shutil

import pytest
from PIL import Image

from kfpn.data.formats.coco import CocoSource


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    (folder / "images" / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        Image.new("RGB", (30, 20)).save(folder / "images" / name)
    return folder


@pytest.fixture
def content():
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 5], "area": 33, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0, 0, 30, 20]},
        ],
    }


@pytest.fixture
def opened(template, tmp_path, content):
    def opened(change=lambda content: None, codec="utf-8"):
        change(content)
        path = tmp_path / "a.json"
        path.write_bytes(json.dumps(content, ensure_ascii=False).encode(codec))
        return CocoSource(path, template / "images")

    return opened


def renamed(*names):
    def change(content):
        for image, name in zip(content["images"], names, strict=False):
            image["file_name"] = name

    return change


def with_ids(kind, *, rows="images", field="image_id"):
    """Changes all ids of a list, and those that name them."""

    def change(content):
        for row in content[rows]:
            row["id"] = kind(row["id"])
        for row in content["annotations"]:
            row[field] = kind(row[field])

    return change


SAME = [(1, [[2, 1, 7, 11]], [0]), (2, [[0, 0, 20, 30]], [1])]


def rows(source):
    return [(record.image_id, record.boxes.tolist(), record.labels.tolist()) for record in source]


@pytest.mark.parametrize("kind", [float, str, "{}.0".format, "{:06}".format, " {} ".format])
@pytest.mark.parametrize(("table", "field"), [("images", "image_id"), ("categories", "category_id")])
def test_ids_may_be_numbers_in_any_dress(opened, caplog, kind, table, field):
    source = opened(with_ids(kind, rows=table, field=field))
    assert rows(source) == SAME
    assert source.category_ids == (1, 2)
    assert caplog.messages == []


def test_ids_that_are_text_all_over_are_numbered(opened, caplog):
    assert rows(opened(with_ids("img{}".format))) == SAME
    assert [message.partition(".json: ")[2] for message in caplog.messages] == [
        "images whose ids are text, numbered 1 to N in the order of the file: 2 (first: 'img1')"
    ]


def test_ids_that_would_be_one_number_are_told_apart_as_text(opened):
    def change(content):
        content["images"][0]["id"], content["images"][1]["id"] = "01", "1"
        content["annotations"][0]["image_id"], content["annotations"][1]["image_id"] = "01", "1"

    assert rows(opened(change)) == SAME


def test_categories_may_be_named_by_text_ids_or_by_names(opened):
    assert rows(opened(with_ids("c{}".format, rows="categories", field="category_id"))) == SAME


def test_a_class_may_be_given_by_its_name(opened):
    def change(content):
        content["annotations"][0]["category_id"], content["annotations"][1]["category_id"] = "cat", "dog"

    assert rows(opened(change)) == SAME


def test_names_that_are_integers_are_text(opened):
    def change(content):
        content["categories"][0]["name"], content["categories"][1]["name"] = 7, 0

    assert opened(change).class_names == ("7", "0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][1].update(id="1"), r"image ids must be unique, got 1 and '1', which are one number"),
        (lambda c: c["images"][1].update(id=1.0), r"image ids must be unique, got 1 and 1\.0"),
        (lambda c: c["images"][1].update(id="b"), r"images\[1\]: id must be a whole number, as the others are, .*got 'b'"),
        (lambda c: c["images"][1].update(id=1.5), r"images\[1\]: id must be a whole number.*got 1\.5"),
        (lambda c: c["images"][1].update(id=True), r"images\[1\]: id must be a whole number.*got True"),
        (lambda c: c["images"][1].update(id=[2]), r"images\[1\]: id must be a whole number.*got \[2\]"),
        (lambda c: c["images"][1].update(id=None), r"images\[1\] must have 'id'"),
        (lambda c: c["annotations"][1].update(image_id="b.png"), r"annotation 2: image_id must be the id of an image, got 'b\.png'"),
        (lambda c: c["annotations"][1].update(image_id=1.5), r"annotation 2: image_id must be the id of an image, got 1\.5"),
        (lambda c: c["annotations"][1].update(image_id=True), r"annotation 2: image_id must be the id of an image, got True"),
        (lambda c: c["annotations"][1].update(category_id=1.5), r"annotation 2 of .*b\.png: category_id must be one of .*got 1\.5"),
        (lambda c: c["annotations"][1].update(category_id="cow"), r"category_id must be one of .*got 'cow'"),
        (lambda c: c["annotations"][1].update(category_id=True), r"category_id must be one of .*got True"),
        (lambda c: c["categories"][1].update(name=["dog"]), r"categories\[1\]: name must be text, got \['dog'\]"),
        (lambda c: c["categories"][1].update(name=" "), r"categories\[1\]: name must be text, got ' '"),
        (lambda c: c["categories"][1].update(name=1.5), r"categories\[1\]: name must be text"),
        (lambda c: (c["categories"][0].update(name="2"), c["annotations"][0].update(category_id="2")), r"got '2', which is the id of 'dog' and the name of another one, whose id is 1"),
        (lambda c: c["categories"][1].update(name="cat"), r"category names must be unique, got 'cat' more than once, with the ids 1 and 2"),
        (lambda c: c["images"][0].update(file_name=7), r"images\[0\] must have 'file_name' in text, got 7"),
    ],
)  # fmt: skip
def test_ids_and_names_of_no_kind_are_refused_by_name(opened, change, message):
    with pytest.raises(ValueError, match=message):
        opened(change)


@pytest.mark.parametrize("value", ["0", "false", "False", 0.0, False, None])
@pytest.mark.parametrize("field", ["iscrowd", "ignore", "difficult"])
def test_flags_that_are_not_set_in_any_dress(opened, caplog, field, value):
    source = opened(lambda c: c["annotations"][0].update({field: value}))
    assert not source[0].crowd.any()
    assert caplog.messages == []


@pytest.mark.parametrize("value", ["1", "true", "TRUE", 1.0, True, 1])
@pytest.mark.parametrize("field", ["iscrowd", "ignore", "difficult"])
def test_flags_that_are_set_in_any_dress(opened, caplog, field, value):
    source = opened(lambda c: c["annotations"][0].update({field: value}))
    assert source[0].crowd.tolist() == [True]
    assert [f"{field} 1, taken as crowd: 1" in message for message in caplog.messages] == [True] * (field != "iscrowd")


@pytest.mark.parametrize("value", ["", "yes", "2", 2, -1, 0.5, float("nan"), [], {}])
@pytest.mark.parametrize("field", ["iscrowd", "ignore", "difficult"])
def test_what_is_no_flag_is_refused_with_the_annotation(opened, field, value):
    with pytest.raises(ValueError, match=rf"annotation 1 of .*a\.png: {field} must be 0, 1, true or false, got"):
        opened(lambda c: c["annotations"][0].update({field: value}))


def test_boxes_and_sizes_may_be_numbers_in_text(opened):
    def change(content):
        content["annotations"][0].update(bbox=["1", "2.0", " 10 ", "5e0"], area="33")
        content["images"][0].update(height="20", width=30.0)

    source = opened(change)
    assert rows(source) == SAME
    assert source[0].areas.tolist() == [33]


@pytest.mark.parametrize(
    "bbox",
    [None, [None] * 4, [True, 1, 2, 3], [[1, 2], [3, 4]], [[1, 2, 3, 4]], "1,2,3,4", {"x": 1}, ["a", 1, 2, 3], [1, 2, 3], ["0x9", 1, 2, 3], []],
)  # fmt: skip
def test_boxes_that_are_no_four_numbers_are_refused_with_the_annotation(opened, bbox):
    with pytest.raises(
        ValueError, match=r"annotation 1 of .*a\.png: bbox must be four numbers \(x, y, width, height\), got"
    ):
        opened(lambda c: c["annotations"][0].update(bbox=bbox))


def test_a_decimal_comma_is_refused_with_a_hint(opened):
    with pytest.raises(ValueError, match=r"bbox must be .*: write a point for the decimal comma in '1,5'"):
        opened(lambda c: c["annotations"][0].update(bbox=["1,5", "2", "3", "4"]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "NaN", "-inf"])
def test_boxes_that_are_not_finite_are_left_out_and_counted(opened, caplog, value):
    source = opened(lambda c: c["annotations"][0].update(bbox=[value, 2, 3, 4]))
    assert len(source[0].boxes) == 0
    assert "not a finite number, left out: 1" in caplog.text


def test_an_area_that_is_no_number_is_measured_by_its_box_and_counted(opened, caplog):
    assert opened(lambda c: c["annotations"][0].update(area="large"))[0].areas.tolist() == [50]
    assert "annotations whose area is no number, measured by their boxes: 1" in caplog.text


def groups(*more):
    def change(content):
        content["categories"] = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "pets"},
            {"id": 2, "name": "dog", "supercategory": "pets"},
            *more,
        ]

    return change


def test_a_category_that_only_groups_others_is_left_out_and_said(opened, caplog):
    source = opened(groups())
    assert source.class_names == ("cat", "dog")
    assert source.category_ids == (1, 2)
    assert source.left_out_classes == [("pets", 0)]
    assert (
        "categories without annotations that only group others (supercategory 'none'), left out: 1 (first: 'pets', id 0)"
        in caplog.text
    )


def test_a_group_with_annotations_is_a_class(opened):
    def change(content):
        groups()(content)
        content["annotations"][0]["category_id"] = 0

    assert opened(change).class_names == ("pets", "cat", "dog")


def test_an_unused_class_that_groups_nothing_stays(opened):
    source = opened(
        groups({"id": 3, "name": "bird", "supercategory": "pets"}, {"id": 4, "name": "x", "supercategory": "none"})
    )
    assert source.class_names == ("cat", "dog", "bird", "x")


def test_a_class_may_have_the_name_of_its_group(opened):
    def change(content):
        content["categories"] = [
            {"id": 0, "name": "cat", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "cat"},
        ]
        content["annotations"][0]["category_id"] = content["annotations"][1]["category_id"] = 1

    assert opened(change).class_names == ("cat",)


@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_json_is_read_in_all_forms_of_unicode(opened, codec):
    assert opened(lambda c: c["categories"][0].update(name="猫é"), codec).class_names == ("猫é", "dog")


@pytest.mark.parametrize("codec", ["gbk", "shift_jis", "latin-1"])
def test_json_in_another_encoding_is_refused_by_name(opened, codec):
    with pytest.raises(ValueError, match=r"coco:.*a\.json: is not JSON text in UTF-8, UTF-16 or UTF-32"):
        opened(lambda c: c["categories"][0].update(name="é" if codec == "latin-1" else "狗"), codec)


@pytest.mark.parametrize(
    "names",
    [
        (r"C:\Users\me\a.png", r"C:\Users\me\b.png"), (r"..\..\x\a.png", r"..\..\x\b.png"), ("/content/drive/a.png", "/content/drive/b.png"),
        ("http://h/d/a.png?s=1", "http://h/d/b.png?s=2"), ("s3://b/d/a.png", "s3://b/d/b.png"), ("/data/local-files/?d=d/a.png", "/data/local-files/?d=d%2Fb.png"),
        ("/data/upload/1/ab12-a.png", "/data/upload/1/0a1b2c3d-b.png"), ("images/1/a.png", "images/1/b.png"), (r"\\server\share\a.png", "b.png"),
        ("file:///C:/d/a.png", "D:/b.png"), ("./a.png", "b.png"), ("A.PNG", "B.Png"), (" a.png", "b.png "), ("%61.png", "b.png"),
    ],
)  # fmt: skip
def test_file_names_of_other_machines_are_found(opened, caplog, names):
    source = opened(renamed(*names))
    assert [record.image[-5:] for record in source] == ["a.png", "b.png"]
    assert rows(source) == SAME
    assert bool(caplog.messages) == (names[0] != "./a.png")  # one line for each way to read names


def test_images_in_a_folder_below_are_found_where_none_is_where_it_should_be(template, content, tmp_path, caplog):
    shutil.copytree(template / "images", tmp_path / "train")
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert rows(CocoSource(tmp_path / "a.json")) == SAME
    assert "found by their last part: 2 (first: a.png is " in caplog.text


def test_a_missing_image_is_not_taken_from_another_folder(opened):
    with pytest.raises(
        ValueError, match=r"1 of 2 images do not exist:\n.*c\.png \(sub/c\.png is there\)\nThe others are there"
    ):
        opened(renamed("a.png", "c.png"))


@pytest.mark.parametrize(("there", "name", "taken"), [
    ("train/a.png", "val/a.png", False), ("MOT-02/img1/a.png", "MOT-04/img1/a.png", False), ("a.png", "train/a.png", True),
    ("images/a.png", "set/images/a.png", True), ("set/images/a.png", "images/a.png", True), ("Images/a.png", "x/images/a.png", True),
])  # fmt: skip
def test_an_image_of_a_folder_that_is_missing_is_not_taken_from_another_one(
    template, content, tmp_path, there, name, taken
):
    file = tmp_path / "all" / there
    file.parent.mkdir(parents=True)
    shutil.copy(template / "images" / "a.png", file)
    del content["images"][1], content["annotations"][1]
    renamed(name)(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    if taken:
        assert CocoSource(tmp_path / "a.json", tmp_path / "all")[0].image == str(file)
    else:
        with pytest.raises(ValueError, match=r"1 of 1 images do not exist"):
            CocoSource(tmp_path / "a.json", tmp_path / "all")


def test_a_name_that_fits_two_files_is_refused_with_both(template, content, tmp_path):
    for folder in ("train", "val"):
        shutil.copytree(template / "images", tmp_path / folder)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError,
        match=r"file name 'a\.png' must fit one file in .*, got train/a\.png and val/a\.png: write the folder",
    ):
        CocoSource(tmp_path / "a.json")
    renamed(r"D:\x\val\a.png", r"D:\x\train\b.png")(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert [record.image.removeprefix(f"{tmp_path}/") for record in CocoSource(tmp_path / "a.json")] == [
        "val/a.png",
        "train/b.png",
    ]


def test_two_names_for_one_file_are_refused_with_both(opened):
    with pytest.raises(
        ValueError, match=r"different files, got '/x/a\.png' and '/y/a\.png', which both fit .*images/a\.png"
    ):
        opened(renamed("/x/a.png", "/y/a.png"))
    with pytest.raises(ValueError, match=r"different files, got 'a\.png' and 'A\.png', which both fit"):
        opened(renamed("a.png", "A.png"))


@pytest.mark.parametrize(
    ("key", "text"),
    [("bbox", ["9" * 200_000 + "x", 1, 2, 3]), ("iscrowd", "0" * 200_000 + "x"), ("image_id", " " * 100_000 + "x"), ("category_id", "1" * 200_000),
     ("file_name", "a" + "\u0301\u0323" * 50_000 + ".png"), ("file_name", "a/" * 100_000), ("file_name", "%25" * 50_000), ("file_name", "../" * 100_000 + "a")],
)  # fmt: skip
def test_long_text_is_refused_at_once_in_a_short_line(opened, key, text):
    with pytest.raises(ValueError, match=r"coco:.*a\.json: ") as error:
        opened(lambda c: c["images" if key == "file_name" else "annotations"][0].update({key: text}))
    assert len(str(error.value)) < 2000


def test_an_image_that_is_listed_twice_is_said(opened, caplog):
    assert len(opened(renamed("a.png", "a.png"))) == 2
    assert (
        "images that are listed again under another id, so that each has a part of the boxes: 1 (first: " in caplog.text
    )


def test_a_name_without_ending_is_refused_with_the_files_that_are_there(template, content, tmp_path):
    shutil.copytree(template / "images", tmp_path / "images")
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "a.bmp")
    renamed("a", "b.png")(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"images/a \(a\.bmp and a\.png is there\)"):
        CocoSource(tmp_path / "a.json", tmp_path / "images")


def test_the_notes_of_macos_are_left_out(opened, caplog):
    source = opened(lambda c: c["images"].append({"id": 3, "file_name": "._a.png"}))
    assert rows(source) == SAME
    assert "macOS's notes on files ('._'), left out with their annotations: 1 (first: ._a.png)" in caplog.text
