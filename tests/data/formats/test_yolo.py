"""YOLO's labels: hand arithmetic, what people's yamls say, and each fault as one line that names the file and the line."""

import codecs

import numpy as np
import pytest
from PIL import Image

from kfpn.data.formats import default_val_data, open_source
from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.yolo import YoloSource

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def image(path, width=40, height=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def made(root, yaml=YAML, label="0 0.5 0.5 0.25 0.5\n", split="train"):
    """Makes a data set of one image a split with one label file, and returns the yaml's path."""
    image(root / "images" / split / "a.png")
    (root / "labels" / split).mkdir(parents=True, exist_ok=True)
    content = label if isinstance(label, bytes) else label.encode()
    (root / "labels" / split / "a.txt").write_bytes(content)
    (root / "data.yaml").write_bytes(yaml if isinstance(yaml, bytes) else yaml.encode())
    return root / "data.yaml"


def boxes(source):
    return [source[i].boxes.tolist() for i in range(len(source))]


def test_a_box_is_given_by_its_centre_and_size_as_shares_of_the_sides(tmp_path):
    source = YoloSource(made(tmp_path, label="1 0.5 0.5 0.25 0.5\n0 0.25 0.25 0.5 0.5\n"))
    assert source[0].boxes.tolist() == [[5, 15, 15, 25], [0, 0, 10, 20]]
    assert source[0].labels.tolist() == [1, 0]
    assert source[0].areas.tolist() == [100, 200]
    assert source.class_names == ("cat", "dog")
    assert source.category_ids == (0, 1)
    assert not source[0].crowd.any()


def test_a_polygon_becomes_the_box_around_it_and_keeps_its_area(tmp_path, caplog):
    source = YoloSource(made(tmp_path, label="0 0.25 0.5 0.5 0.5 0.5 1.0\n"))
    assert source[0].boxes.tolist() == [[10, 10, 20, 20]]
    assert source[0].areas.tolist() == [50]
    assert "polygons, read as the boxes around them: 1 (first: " in caplog.text
    assert "a.txt, line 1)" in caplog.text


def test_four_corners_are_said_to_be_turned_boxes_or_polygons(tmp_path, caplog):
    source = YoloSource(made(tmp_path, label="0 .25 .5 .5 .25 .75 .5 .5 .75\n"))
    assert source[0].boxes.tolist() == [[5, 10, 15, 30]]
    assert "objects of four corners (turned boxes or polygons), read as the upright boxes around them: 1" in caplog.text


def test_keypoints_behind_a_box_are_not_read_and_said(tmp_path, caplog):
    path = made(tmp_path, YAML + "kpt_shape: [2, 3]\n", "0 0.5 0.5 0.25 0.5 0.4 0.4 2 0.6 0.6 1\n")
    assert boxes(YoloSource(path)) == [[[5, 15, 15, 25]]]
    assert "boxes with keypoints, which are not read: 1" in caplog.text


def test_polygons_that_may_be_keypoints_are_warned_of(tmp_path, caplog):
    line = "0 0.5 0.5 0.2 0.2 0.45 0.5 0.5 0.55 0.55 0.{}\n"
    YoloSource(made(tmp_path, label="".join(line.format(digit) for digit in (45, 46, 47, 48))))
    assert "polygons that may be boxes with keypoints" in caplog.text
    assert "for keypoints write kpt_shape into the yaml: 4" in caplog.text


def test_an_image_without_a_label_file_has_no_objects_and_is_counted(tmp_path, caplog):
    path = made(tmp_path)
    image(tmp_path / "images" / "train" / "b.png")
    (tmp_path / "labels" / "train" / "empty.txt").touch()
    assert boxes(YoloSource(path)) == [[[5, 15, 15, 25]], []]
    assert "images without a label file, taken as images without objects: 1 (first: " in caplog.text
    assert "label files without an image, left out: 1 (first: " in caplog.text


def test_empty_label_files_are_images_without_objects(tmp_path, caplog):
    path = made(tmp_path)
    image(tmp_path / "images" / "train" / "b.png")
    (tmp_path / "labels" / "train" / "b.txt").write_text("\n  \n")
    assert boxes(YoloSource(path)) == [[[5, 15, 15, 25]], []]
    assert caplog.text == ""


@pytest.mark.parametrize(
    "content",
    [
        b"0\t0.5\t0.5\t0.25\t0.5\t\n",
        b"0 0.5 0.5 0.25 0.5\r\n\r\n",
        b"  0   .5 5e-1 0.25 +0.5",
        b"0.0 0.5 0.5 0.25 0.5\n",
        codecs.BOM_UTF8 + b"0 0.5 0.5 0.25 0.5\n",
        "0 0.5 0.5 0.25 0.5\n".encode("utf-16"),
        b"0 0.5 0.5 0.25 0.5\r",
    ],
)
def test_labels_are_read_as_other_machines_write_them(tmp_path, content):
    assert boxes(YoloSource(made(tmp_path, label=content))) == [[[5, 15, 15, 25]]]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "0.5 0.5 0.25 0.5",
            r"a\.txt, line 2: must be class, x, y, width and height.*got 4 values: is the class missing",
        ),
        ("0", r"a\.txt, line 2: .*got 1 value: the line is not whole"),
        ("0 0.5 0.5 0.25 0.5 0.9", r"a\.txt, line 2: .*got 6 values: the sixth looks like a score"),
        (
            "0 0.5 0.5 0.25 0.5 0.4 0.4 2",
            r"a\.txt, line 2: .*got 8 values: a polygon has pairs x, y; keypoints\? then write kpt_shape into the yaml",
        ),
        ("2 0.5 0.5 0.25 0.5", r"a\.txt, line 2: class must lie in 0\.\.1, the classes of .*data\.yaml, got 2"),
        ("-1 0.5 0.5 0.25 0.5", r"a\.txt, line 2: class must lie in 0\.\.1"),
        ("1.5 0.5 0.5 0.25 0.5", r"a\.txt, line 2: class must be a whole number, got '1\.5'"),
        ("nan 0.5 0.5 0.25 0.5", r"a\.txt, line 2: class must be a whole number, got 'nan'"),
        (
            "cat 0.5 0.5 0.25 0.5",
            r"a\.txt, line 2: class must be a whole number, got 'cat': write its number in .*data\.yaml",
        ),
        ("0,0.5,0.5,0.25,0.5", r"a\.txt, line 2: class must be a whole number, .*numbers are separated by spaces"),
        (
            "0 0,5 0.5 0.25 0.5",
            r"a\.txt, line 2: must be numbers behind the class, got '0,5': write a point for the decimal comma",
        ),
        ("0 0.5 x 0.25 0.5", r"a\.txt, line 2: must be numbers behind the class, got 'x'"),
        ("0 0.5 1_0 0.25 0.5", r"a\.txt, line 2: must be numbers behind the class, got '1_0'"),
        ("0 12 8 10 10", r"a\.txt, line 2: must be shares of the image's sides, 0\.\.1, got 12: divide x and widths"),
        ("0 1.02 0.5 0.25 0.5", r"a\.txt, line 2: must be shares of the image's sides, 0\.\.1, got 1\.02"),
        ("1" * 500 + " 0.5 0.5 0.25 0.5", r"a\.txt, line 2: class must be a whole number, got '1111"),
        ("0 -0.5 0.5 0.25 0.5", r"a\.txt, line 2: must be shares of the image's sides, 0\.\.1, got -0\.5"),
    ],
)
def test_a_line_that_is_no_label_is_one_error_line_with_file_and_line(tmp_path, label, message):
    with pytest.raises(ValueError, match=message) as error:
        YoloSource(made(tmp_path, label=f"0 0.5 0.5 0.25 0.5\n{label}\n"))
    assert "\n" not in str(error.value)


def test_boxes_that_are_not_finite_or_have_no_area_are_left_out_and_counted_with_their_line(tmp_path, caplog):
    source = YoloSource(
        made(tmp_path, label="0 nan 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n0 0.5 0.5 0 0.5\n0 inf 0 .1 .1\n")
    )
    assert source[0].labels.tolist() == [1]
    assert "boxes with a coordinate that is not a finite number, left out: 2 (first: " in caplog.text
    assert "boxes without area, left out: 1 (first: " in caplog.text
    assert "a.txt, line 3)" in caplog.text


def test_tiny_overshoots_are_clipped_and_counted(tmp_path, caplog):
    assert boxes(YoloSource(made(tmp_path, label="0 0.5 0.5 1.005 1.000001\n0 0 0 1 1.0001 -0.004 1\n"))) == [
        [[0, 0, 20, 40], [0, 0, 20, 40]]
    ]
    assert "labels with a share up to 0.01 outside of 0..1, clipped: 2" in caplog.text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1e999"])
def test_a_polygon_with_a_number_that_is_not_finite_is_left_out_and_only_that_is_said(tmp_path, caplog, bad):
    source = YoloSource(
        made(tmp_path, label=f"0 .1 .1 {bad} .5 .5 {bad}\n0 {bad} {bad} .3 .3 {bad} .5\n1 .5 .5 .5 .5\n")
    )
    assert source[0].labels.tolist() == [1]
    assert "boxes with a coordinate that is not a finite number, left out: 2 (first: " in caplog.text


@pytest.mark.parametrize("again", ["0 0.5 0.5 0.25 0.5", "0  .5 5e-1\t0.250 +.5", "0.0 0.50 0.5 0.25 0.5"])
def test_a_line_that_is_there_twice_counts_once_however_its_numbers_are_spelt(tmp_path, caplog, again):
    assert len(boxes(YoloSource(made(tmp_path, label=f"0 0.5 0.5 0.25 0.5\n{again}\n")))[0]) == 1
    assert "label lines that are there twice in a file, left out: 1" in caplog.text


def test_corners_in_place_of_centre_and_size_are_refused(tmp_path):
    lines = ["0 nan 0.5 0.1 0.1", *(f"0 0.7 0.7 0.9{digit} 0.9{digit}" for digit in range(5))]
    with pytest.raises(ValueError, match=r"centre, width, height, got 5 boxes that look like x1, y1, x2, y2"):
        YoloSource(made(tmp_path, label="\n".join(lines)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a.txt: is a git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "a.txt: is a web page"),
        (b"0 0.5 0.5 \xff\n", r"a\.txt: is not text in UTF-8, UTF-16 or UTF-32 \(line 1\)"),
    ],
)
def test_label_files_that_are_something_else_are_called_by_their_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        YoloSource(made(tmp_path, label=content))


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("train: images/train\nnames: [cat, dog]\n", ("cat", "dog")),
        ("train: images/train\nnames:\n  1: dog\n  0: cat\n", ("cat", "dog")),
        ("train: images/train\nnames:\n- no\n- 010\n", ("no", "010")),
        ("train: images/train\nnc: 2\nnames: ['cat', \"dog\"]\n", ("cat", "dog")),
        ("train: images/train\nnc: 2\n", ("class_0", "class_1")),
        ("path: ../gone\ntrain: images/train\nnames: [cat]\n", ("cat",)),
        ("path: .\ntrain: ./images/train\nnames: [cat]\n", ("cat",)),
        ("train: ../images/train\nnames: [cat]\n", ("cat",)),
        ("train: [images/train]\nval:\nnames: [cat]\n", ("cat",)),
        ("train: /content/drive/MyDrive/d/images/train\nnames: [cat]\n", ("cat",)),
        ("train: C:\\d\\images\\train\nnames: [cat]\n", ("cat",)),
        ("train: images\nnames: [cat]\n", ("cat",)),
        ('{"train": "images/train", "names": ["cat"]}', ("cat",)),
        (codecs.BOM_UTF8 + "train: images/train\r\nnames: [猫]\r\n".encode(), ("猫",)),
        ("train: images/train\nnames: [cat]\nroboflow: {version: 1}\ndownload: |\n  a\n", ("cat",)),
    ],
)
def test_yamls_are_read_as_people_write_them(tmp_path, yaml, names):
    source = YoloSource(made(tmp_path, yaml))
    assert source.class_names == names
    assert boxes(source) == [[[5, 15, 15, 25]]]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("just a text", r"data\.yaml: must be the data\.yaml of a YOLO data set, got 'just a text'"),
        ("", r"data\.yaml: must be the data\.yaml of a YOLO data set, got an empty file"),
        ("- a\n- b\n", r"data\.yaml: must be the data\.yaml of a YOLO data set"),
        ("train: a\n\tb: [\n", r"data\.yaml: is not YAML: line 2, column 1: found character"),
        (b"\xff\xff\x80", r"data\.yaml: is not text in UTF-8"),
        (b"train: \x00", r"data\.yaml: is not YAML"),
        ("names: [cat]\n", r"data\.yaml: must say where the images are, got the keys 'names'"),
        ("train: images/train\n", r"data\.yaml: must have `names:`"),
        ("train: images/train\nnc: 3\nnames: [cat, dog]\n", r"data\.yaml: names must be as many as nc says, 3, got 2"),
        ("train: images/train\nnc: x\nnames: [cat]\n", r"data\.yaml: nc must be the number of classes, got 'x'"),
        ("train: images/train\nnames: [cat, cat]\n", r"data\.yaml: names must be unique, got 'cat' more than once"),
        (
            "train: images/train\nnames: {0: cat, 2: dog}\n",
            "names must number the classes from 0 without a gap, got none for 1",
        ),
        ("train: images/train\nnames: {0: cat, a: dog}\n", "names must number each class once, got the key 'a'"),
        ("train: images/train\nnames: {0: cat, 0: dog}\n", r"is not YAML: line 2, column 17: '0' is there twice"),
        ("train: images/train\nnames: [[cat]]\n", r"names\[0\] must be text, got \['cat'\]"),
        (
            "train: images/nope\nnames: [cat]\n",
            r"images/nope must be a folder of images or a list .* got none: looked for",
        ),
        (
            "train: data.yaml\nnames: [cat]\n",
            r"data\.yaml must be a folder of images or a list of them \(\.txt\), got the file",
        ),
        ("train: {a: b}\nnames: [cat]\n", "train must be a folder, a list of folders"),
        ("train: images/train\nval: a\nvalid: b\nnames: [cat]\n", "must have one of val and valid, got both"),
        (
            "train: images/train\nnames: &a [cat]\nval: *a\n",
            r"is not YAML: line 3, column 6: aliases \(\*name\) are not read",
        ),
        ("train: [images/train, images/train]\nnames: [cat]\n", r"each image must be there once, got .*a\.png twice"),
        ("train: images/train\nkpt_shape: 17\nnames: [cat]\n", "kpt_shape must be"),
        ("[" * 3000, "is nested too deep"),
    ],
)
def test_a_yaml_that_is_none_or_lacks_something_is_one_error_line(tmp_path, yaml, message):
    with pytest.raises(ValueError, match=message) as error:
        YoloSource(made(tmp_path, yaml))
    assert "\n" not in str(error.value)


def test_a_yaml_that_is_missing_is_an_error_with_those_that_are_there(tmp_path):
    made(tmp_path)
    with pytest.raises(ValueError, match=r"date\.yaml does not exist .* that folder holds .*data\.yaml"):
        open_source(f"yolo:{tmp_path}/date.yaml")


def test_a_split_that_was_written_on_another_machine_is_never_another_split(tmp_path):
    path = made(tmp_path, "train: /content/d/images/train\nval: /content/d/images/val\nnames: [cat]\n")
    with pytest.raises(ValueError, match="/content/d/images/val must be a folder"):
        YoloSource(path, "val")


def test_validation_images_that_are_the_training_images_are_warned_of(tmp_path, caplog):
    YoloSource(made(tmp_path, "train: images/train\nval: images/train\nnames: [cat]\n"), "val")
    assert "holds the training images, images/train: what is measured says nothing of new images" in caplog.text


def test_a_list_names_images_from_its_own_folder_from_the_yaml_and_of_another_machine(tmp_path):
    path = made(tmp_path, "train: lists/train.txt\nnames: [cat]\n")
    image(tmp_path / "images" / "train" / "b.png")
    image(tmp_path / "lists" / "c.png")
    image(tmp_path / "images" / "train" / "unlisted.png")
    (tmp_path / "lists" / "train.txt").write_text("./c.png\r\nimages/train/a.png\r\n\r\n/x/y/images/train/b.png\r\n")
    assert boxes(YoloSource(path)) == [[], [[5, 15, 15, 25]], []]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "images/train/a.png\nimages/train/b.png\nc.png\n",
            r"2 images of the list .*train\.txt do not exist:\n  line 2: images/train/b",
        ),
        (
            "images/train/a.png\n./images/train/a.png\n",
            r"got .*a\.png twice: line 1 of .*train\.txt and line 2 of .*train\.txt",
        ),
        ("", "must have at least one image, got none in train.txt"),
        (b"\xff\xff\x80", "is not text in UTF-8"),
    ],
)
def test_lists_with_faults_are_refused(tmp_path, lines, message):
    path = made(tmp_path, "train: train.txt\nnames: [cat]\n")
    (tmp_path / "train.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    with pytest.raises(ValueError, match=message):
        YoloSource(path)


def test_labels_may_lie_beside_the_images_and_in_the_last_folder_that_images_becomes(tmp_path):
    path = made(tmp_path / "images", "train: images/deep\nnames: [cat]\n")
    image(tmp_path / "images" / "images" / "deep" / "er" / "b.png")
    image(tmp_path / "images" / "images" / "deep" / "c.png")
    (tmp_path / "images" / "labels" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "images" / "labels" / "deep" / "er" / "b.txt").write_text("0 .5 .5 .5 1\n")
    (tmp_path / "images" / "images" / "deep" / "c.txt").write_text("0 .5 .5 1 1\n")
    assert boxes(YoloSource(path)) == [[[0, 0, 20, 40]], [[0, 10, 20, 30]]]


def test_folders_and_endings_may_have_any_case(tmp_path, caplog):
    image(tmp_path / "Images" / "a.PNG")
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Labels" / "A.TXT").write_text("0 .5 .5 .5 1\n")
    (tmp_path / "data.yaml").write_text("train: Images\nnames: [cat]\n")
    assert boxes(YoloSource(tmp_path / "data.yaml")) == [[[0, 10, 20, 30]]]
    assert "spelt otherwise on this machine" in caplog.text


def test_a_label_file_belongs_to_one_image(tmp_path):
    path = made(tmp_path)
    image(tmp_path / "images" / "train" / "a.bmp")
    with pytest.raises(ValueError, match=r"a\.txt must belong to one image, got .*a\.bmp and .*a\.png"):
        YoloSource(path)


def test_without_any_label_file_the_error_says_where_they_were_looked_for(tmp_path):
    path = made(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(
        ValueError, match=r"must have label files, got none for 1 images: looked in .*labels/train and "
    ):
        YoloSource(path)


def test_a_folder_with_a_list_of_classes_needs_no_yaml(tmp_path):
    made(tmp_path)
    made(tmp_path, split="val")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n")
    source = open_source(f"yolo:{tmp_path}")
    assert source.class_names == ("cat", "dog")
    assert boxes(source) == [[[5, 15, 15, 25]]]
    assert default_val_data(f"yolo:{tmp_path}") == f"yolo:{tmp_path},val"
    (tmp_path / "labels" / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(ValueError, match=r"must list the same classes in the same order"):
        open_source(f"yolo:{tmp_path}")


def test_the_validation_split_and_the_splits_that_are_not_there(tmp_path):
    path = made(tmp_path)
    made(tmp_path, split="val")
    assert default_val_data(f"yolo:{path}") == f"yolo:{path},val"
    assert default_val_data(f"yolo:{path},val") is None
    assert len(open_source(f"yolo:{path}", "validation")) == 1
    with pytest.raises(ValueError, match="split must be one of train, val, got test"):
        open_source(f"yolo:{path},test")
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'trian'"):
        open_source(f"yolo:{path},trian")


def test_a_changed_label_or_a_new_image_is_noticed_when_it_is_opened_again(tmp_path):
    path = made(tmp_path)
    for _ in range(2):
        assert boxes(open_source(f"yolo:{path}")) == [[[5, 15, 15, 25]]]
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    assert boxes(open_source(f"yolo:{path}")) == [[[0, 0, 20, 40]]]
    image(tmp_path / "images" / "train" / "b.png")
    assert boxes(open_source(f"yolo:{path}")) == [[[0, 0, 20, 40]], []]
    path.write_text(YAML.replace("cat", "cow"))
    assert open_source(f"yolo:{path}").class_names == ("cow", "dog")


def test_the_same_objects_in_yolo_and_in_coco_are_equal_within_half_a_pixel(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = shared("data/pothole")
    for split, place in (("train", "train"), ("val", "valid")):
        one = YoloSource(folder / "data.yaml", split)
        other = CocoSource(folder / place / "_annotations.coco.json", folder / place / "images")
        of_file = {other[i].image: other[i] for i in range(len(other))}
        assert len(one) == len(other)
        assert one.class_names == other.class_names
        for i in range(len(one)):
            mine, theirs = one[i], of_file[one[i].image]
            assert len(mine.boxes) == len(theirs.boxes)
            gaps = np.abs(mine.boxes[:, None] - theirs.boxes[None]).max(axis=2)
            assert not len(gaps) or (gaps.min(axis=1) <= 0.5).all()


def test_a_polygon_is_a_mask_too_where_masks_are_asked_for(tmp_path, caplog):
    path = made(tmp_path, label="0 0.25 0.5 0.5 0.5 0.5 1.0 0.25 1.0\n1 0.5 0.5 0.25 0.5\n")
    masks = YoloSource(path, masks=True)[0].masks
    assert masks.exists.tolist() == [True, False]
    expected = np.zeros((20, 40), bool)
    expected[10:20, 10:20] = True
    assert (masks.bitmap(0) == expected).all()
    assert "polygons, read as masks and the boxes around them: 1" in caplog.text
    assert YoloSource(path)[0].masks is None
