"""A bare folder is found out: what people's archives look like, what fits twice, and what is nothing."""

import json

import pytest
from PIL import Image

from kfpn.data.formats import default_val_data, open_source, open_untouched
from kfpn.data.formats.bare_folder import found_data

XML = "<annotation><filename>{}</filename><object><name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax><ymax>12</ymax></bndbox></object></annotation>"


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(path)


def coco(path, file_name="a.png", encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {
        "images": [{"id": 1, "file_name": file_name}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.write_bytes(json.dumps(held).encode(encoding))


def roboflow_coco(root):
    for split in ("train", "valid", "test"):
        image(root / split / "a.png")
        coco(root / split / "_annotations.coco.json")
    (root / "README.roboflow.txt").write_text("hello")


def coco_itself(root):
    for split in ("train", "val"):
        image(root / f"{split}2017" / "a.png")
        coco(root / "annotations" / f"instances_{split}2017.json")
        (root / "annotations" / f"captions_{split}2017.json").write_text('{"images": [], "annotations": []}')


def one_json(root):
    image(root / "images" / "a.png")
    coco(root / "annotations.json", encoding="utf-16")
    (root / "package.json").write_text("{}")


def yolo_of_roboflow(root):
    for split in ("train", "valid"):
        image(root / split / "images" / "a.png")
        (root / split / "labels").mkdir()
        (root / split / "labels" / "a.txt").write_text("0 0.15 0.35 0.25 0.5\n")
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n")
    (root / "other.yaml").write_text("a: b\n")


def yolo_with_a_list(root):
    image(root / "images" / "a.png")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text("0 0.15 0.35 0.25 0.5\n")
    (root / "classes.txt").write_text("cat\n")


def yolo_in_one_folder(root):
    image(root / "a.png")
    (root / "a.txt").write_text("0 0.15 0.35 0.25 0.5\n")
    (root / "classes.txt").write_text("cat\n")


def voc(root):
    image(root / "JPEGImages" / "a.png")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "a.xml").write_text(XML.format("a.png"))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split in ("train", "val", "cat_train"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("a\n")


def voc_of_roboflow(root):
    for split in ("train", "valid"):
        image(root / split / "a.png")
        (root / split / "a.xml").write_text(XML.format("a.png"))


def flat_voc(root):
    image(root / "a.png")
    (root / "a.xml").write_text(XML.format("a.png"))


def table(root):
    image(root / "images" / "a.png")
    (root / "boxes.csv").write_text("image,x1,y1,x2,y2,class\na.png,1,2,11,12,cat\n")
    (root / "classes.csv").write_text("cat,0\n")


def tables_of_roboflow(root):
    for split in ("train", "valid"):
        image(root / split / "a.png")
        (root / split / "_annotations.csv").write_text(
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,20,cat,1,2,11,12\n"
        )


@pytest.mark.parametrize(
    ("make", "kind", "names"),
    [
        (roboflow_coco, "COCO JSON", {"train": "coco:{}/train/_annotations.coco.json", "validation": "coco:{}/valid/_annotations.coco.json",
                                      "test": "coco:{}/test/_annotations.coco.json"}),
        (coco_itself, "COCO JSON", {"train": "coco:{0}/annotations/instances_train2017.json,{0}/train2017",
                                    "validation": "coco:{0}/annotations/instances_val2017.json,{0}/val2017"}),
        (one_json, "COCO JSON", {"train": "coco:{0}/annotations.json,{0}/images"}),
        (yolo_of_roboflow, "YOLO", {"train": "yolo:{}/data.yaml", "validation": "yolo:{}/data.yaml,val"}),
        (yolo_with_a_list, "YOLO", {"train": "yolo:{}"}),
        (yolo_in_one_folder, "YOLO", {"train": "yolo:{}"}),
        (voc, "Pascal VOC", {"train": "voc:{}", "validation": "voc:{},val"}),
        (voc_of_roboflow, "Pascal VOC", {"train": "voc:{}/train", "validation": "voc:{}/valid"}),
        (flat_voc, "Pascal VOC", {"train": "voc:{}"}),
        (table, "a table of boxes", {"train": "csv:{0}/boxes.csv,{0}/images"}),
        (tables_of_roboflow, "a table of boxes", {"train": "csv:{}/train/_annotations.csv", "validation": "csv:{}/valid/_annotations.csv"}),
    ],
)  # fmt: skip
def test_a_folder_is_what_its_files_say_and_that_is_said(tmp_path, caplog, make, kind, names):
    root = tmp_path / "photos"
    make(root)
    expected = {split: name.format(root) for split, name in names.items()}
    assert found_data(root) == (kind, expected)
    source = open_source(str(root))
    assert [
        (source.class_names[label], *box) for label, box in zip(source[0].labels, source[0].boxes.tolist(), strict=True)
    ] == [("cat", 2, 1, 12, 11)]
    assert f"{root}: read as {kind}, {expected['train']}; splits: {', '.join(expected)}" in caplog.text
    assert default_val_data(str(root)) == expected.get("validation")
    assert len(open_source(str(root), "validation")) == 1
    for split in names:
        assert len(open_source(f"{root},{split}")) == 1
    if "validation" in names:
        assert default_val_data(f"{root},validation") is None


def test_a_folder_within_a_folder_is_found(tmp_path):
    yolo_of_roboflow(tmp_path / "photos" / "photos.v1" / "export")
    assert found_data(tmp_path / "photos").names["train"] == f"yolo:{tmp_path}/photos/photos.v1/export/data.yaml"


def test_a_folder_that_fits_twice_is_an_error_that_lists_both(tmp_path):
    yolo_of_roboflow(tmp_path)
    roboflow_coco(tmp_path)
    with pytest.raises(
        ValueError, match=r"must be one data set, got .*, which can be read in 2 ways: write one of"
    ) as error:
        open_source(str(tmp_path))
    lines = str(error.value).splitlines()[1:]
    assert lines == [
        f"  --data yolo:{tmp_path}/data.yaml",
        f"  --data coco:{tmp_path}/train/_annotations.coco.json --val-data coco:{tmp_path}/valid/_annotations.coco.json",
        "Forms in one folder usually hold the same objects: take the line with coco: if unsure",
    ]


def test_two_json_files_that_are_no_splits_of_one_set_are_two_possibilities(tmp_path):
    image(tmp_path / "a.png")
    coco(tmp_path / "first.json")
    coco(tmp_path / "second part.json")
    with pytest.raises(ValueError, match="in 2 ways") as error:
        open_source(str(tmp_path))
    assert f"--data 'coco:{tmp_path}/second part.json'" in str(error.value)
    assert "usually hold the same" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "which is an empty folder: looked for a data.yaml"),
        ((".hidden.json",), "which is an empty folder"),
        (
            ("a.png", "b.png", "notes.txt"),
            r"which holds 2 images and 1 \.txt, but no annotations: looked for .*\. Draw boxes on the images first",
        ),
        (("data.yaml",), r"which holds 0 images and 1 \.yaml, but no annotations"),
    ],
)
def test_a_folder_that_is_no_data_set_is_an_error_that_lists_what_was_looked_for(tmp_path, names, message):
    for name in names:
        image(tmp_path / name) if name.endswith(".png") else (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message) as error:
        open_source(str(tmp_path))
    for form in ("classes.txt", "COCO", "_annotations.coco.json", "Annotations/", ".csv"):
        assert form in str(error.value)


def test_a_folder_without_training_images_says_what_it_has(tmp_path):
    image(tmp_path / "valid" / "a.png")
    coco(tmp_path / "valid" / "_annotations.coco.json")
    with pytest.raises(
        ValueError,
        match=r"must have a split 'train', got .* with validation \(COCO JSON\): write --data coco:.*valid/_ann",
    ):
        open_source(str(tmp_path))
    with pytest.raises(ValueError, match="must be a folder or FOLDER,SPLIT with a split of train, val, test"):
        open_source(f"{tmp_path},vlid")


def test_faults_of_the_data_are_said_by_the_format(tmp_path):
    yolo_of_roboflow(tmp_path)
    (tmp_path / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['cat']\n")
    with pytest.raises(ValueError, match="names must be as many as nc says, 2, got 1"):
        open_source(str(tmp_path))


def test_nothing_is_written_beside_data_that_must_stay_untouched(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    roboflow_coco(tmp_path / "photos")
    before = sorted(path for path in (tmp_path / "photos").rglob("*"))
    for _ in range(2):
        assert len(open_untouched(str(tmp_path / "photos"))) == 1
    assert sorted(path for path in (tmp_path / "photos").rglob("*")) == before
    assert len(list((tmp_path / "cache" / "kfpn").glob(".kfpn-checked-*.npz"))) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.yaml", "train: images\nnames: [a\n", r"data\.yaml: is not YAML: line 3, column 1"),
        ("data.yaml", "train: images\nnames: {0: a, 0: b}\n", r"data\.yaml: is not YAML: line 2, .*'0' is there twice"),
        ("data.yml", "names: [a]\n", r"no annotations: looked for .*\nIt has files .*:\n  .*data\.yml: must say where the images are"),
        ("boxes.csv", 'image,x1,y1,x2,y2,class\na.png,1,2,11,12,"cat\n', r"boxes\.csv: is not CSV: line 2: unexpected end of data: is a quote"),
        ("boxes.csv", "image,x1,y1,x2,y2,class\na.png,1,2,11,12,\u00e9\n".encode("latin-1"), r"boxes\.csv: is not text in UTF-8"),
        ("boxes.csv", "image,x1,y1,x2,y2\na.png,1,2,11,12\n", r"\n  .*boxes\.csv: must have columns that are understood, got"),
        ("a.json", '{"images": [], "annotations": []}', r"\n  .*a\.json: must have a list 'categories', got the keys 'images', 'annotations'"),
        ("a.json", "version https://git-lfs.github.com/spec/v1\n", r"\n  .*a\.json: is a git-lfs pointer"),
        ("sub/sub/data.yaml", "names: [cat]\n", r"data\.yaml: must say where the images are"),
    ],
)  # fmt: skip
def test_the_fault_of_the_file_that_was_meant_is_named(tmp_path, name, text, message):
    image(tmp_path / "images" / "a.png")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        open_source(str(tmp_path))
