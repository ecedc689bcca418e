import importlib
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kfpn.data import formats
from kfpn.data.formats import FORMATS, default_val_data, describe_formats, open_source, run_name
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record, Source


def test_flags_and_labels_of_records_may_be_numbers_of_any_kind():
    source = IterableSource([record(crowd=np.array([1.0]), labels=np.array([0.0]))], ["cat"])
    assert source[0].crowd.tolist() == [True]
    assert source[0].labels.tolist() == [0]


def record(image_id=0, boxes=((1, 2, 5, 6),), labels=(0,), height=8, width=9, **changes):
    fields = {
        "image": np.zeros((8, 9, 3), np.uint8),
        "boxes": np.array(boxes, None if isinstance(boxes[0] if boxes else 0, str) else np.float32).reshape(-1, 4),
        "labels": np.array(labels),
        "crowd": np.zeros(len(labels), bool),
        "areas": np.ones(len(labels), np.float32),
    }
    return Record(image_id=image_id, height=height, width=width, **{**fields, **changes})


def test_records_in_python_are_a_source():
    source = IterableSource((record(i) for i in range(3)), ["cat"])
    assert isinstance(source, Source)
    assert open_source(source) is source
    assert len(source) == 3
    assert source[-1].image_id == 2
    assert source[0].boxes.tolist() == [[1, 2, 5, 6]]
    assert source[0].areas.tolist() == [1]
    with pytest.raises(IndexError):
        source[3]


def test_records_without_objects_are_kept():
    source = IterableSource([record(boxes=(), labels=())], ["cat"])
    assert source[0].boxes.shape == (0, 4)
    assert source.max_boxes == 0


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "at least one image"),
        ([record(), record()], "image ids must be unique"),
        ([record(labels=[1])], r"labels must lie in 0\.\.0, got \[1\]"),
        ([record(labels=[-1])], r"labels must lie in 0\.\.0"),
        ([record(crowd=np.array(["0"]))], r"record 0: crowd must be 0, 1, False or True, got \['0'\]"),
        ([record(crowd=np.array([2]))], r"record 0: crowd must be 0, 1, False or True, got \[2\]"),
        ([record(labels=[0.5])], r"record 0: labels must be whole numbers, got \[0\.5\]"),
        ([record(labels=["0"])], r"record 0: labels must be whole numbers, got \['0'\]"),
        ([record(boxes=["1", "2", "5", "6"])], "record 0: boxes must be numbers, got"),
        ([record(areas=np.array(["4"]))], r"record 0: areas must be numbers, got \['4'\]"),
        ([record(crowd=np.zeros(2, bool))], r"crowd must be of shape \(1,\), got \(2,\)"),
        ([record(height=7)], "record 0 is 9 x 8, annotated as 9 x 7"),
        ([record(image=np.zeros((8, 9, 3)))], "record 0: image must be .* uint8, got float64"),
        ([record(image="missing.jpg")], "record 0 does not exist"),
        ([record(image=None)], "image must be a path"),
        (["a"], "item 0 must be a .*Record, got a str"),
    ],
)
def test_bad_records_are_refused(records, message):
    with pytest.raises(ValueError, match=message):
        IterableSource(records, ["cat"])


def test_boxes_of_records_are_checked_too(caplog):
    source = IterableSource([record(boxes=[[0, 0, np.nan, 4]])], ["cat"])
    assert source[0].boxes.shape == (0, 4)
    assert "records: boxes with a coordinate" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "must be shapes.*coco:.*voc:.*tfds:.*IterableSource"),
        ("shape", "the nearest is shapes"),
        ("foo", r"got 'foo'; your own images: a folder that is there, coco:ANNOTATIONS\.json,IMAGES_DIR or voc:DIR"),
        ("mine/images", "got 'mine/images', which does not exist, seen from /"),
        ("cooc:a.json", "the nearest is 'coco:a.json'"),
        ("a/b.csv", "did you mean 'csv:a/b.csv'"),
        ("a/b.yaml", "did you mean 'yolo:a/b.yaml'"),
        ("a/b.json,images", "did you mean 'coco:a/b.json,images'"),
        ("voc:", "the nearest is voc:DIR"),
        ("shapes,trian", "split must be one of train, validation, test, got 'trian'"),
        (3, "got a int"),
        ([], "IterableSource"),
    ],
)
def test_the_error_for_an_unknown_form_of_data_lists_all_forms_or_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        open_source(name)


def test_the_default_validation_data_is_another_split(tmp_path):
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    assert default_val_data(f"voc:{tmp_path}") is None
    (lists / "val.txt").touch()
    assert default_val_data(f"voc:{tmp_path}") == f"voc:{tmp_path},val"
    assert default_val_data(f"voc:{tmp_path},val") is None
    assert default_val_data("shapes") == "shapes,validation"
    assert default_val_data("coco:a.json") is None


def test_folders_with_a_comma_in_their_name_can_be_opened(tmp_path):
    folder = tmp_path / "a,b"
    folder.mkdir()
    with pytest.raises(ValueError, match="a,b/ImageSets/Main does not exist"):
        open_source(f"voc:{folder}")
    with pytest.raises(ValueError, match=r"a,b/x\.json does not exist"):
        open_source(f"coco:{folder}/x.json,images")


def test_importing_the_sources_does_not_import_tensorflow():
    code = "import sys, kfpn.data.formats; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_row_of_the_table_names_a_module_with_both_functions():
    for row in FORMATS:
        module = importlib.import_module(f"kfpn.data.formats.{row.module}")
        assert callable(module.open_place)
        assert callable(module.validation_data)


def test_help_errors_and_readme_list_the_forms_of_the_table(capsys):
    from kfpn.cli import main

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    with pytest.raises(ValueError, match="data must be") as error:
        open_source("nonsense")
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
    for row in FORMATS:
        assert row.form in shown
        assert row.form in str(error.value)
        assert f"`{row.form.removesuffix('[,SPLIT]')}" in readme
    assert describe_formats().count("\n") == len(FORMATS) - 1


def test_a_new_format_needs_only_a_module_and_a_row(monkeypatch):
    made = types.ModuleType("kfpn.data.formats.made_up")
    made.open_place = lambda place, split, masks: (place, split)
    made.validation_data = lambda place: f"made:{place},other"
    monkeypatch.setitem(sys.modules, made.__name__, made)
    row = formats.DataFormat("made", "made:THING", "things", "made_up")
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, row))
    assert open_source("made:x", "train") == ("x", "train")
    assert default_val_data("made:x") == "made:x,other"
    assert run_name("made:a/b") == "b"
    assert "made:THING" in describe_formats()
    with pytest.raises(ValueError, match="the nearest is 'made:x'"):
        open_source("mode:x")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("voc:photos/bccd", "bccd"),
        ("voc:photos/bccd,train", "bccd"),
        ("coco:cars/train.json,cars/images", "cars-train"),
        ("tfds:coco/2017,train", "coco-2017"),
        ("shapes,train", "shapes-train"),
        ("shapes", "shapes"),
        ("yolo:cars/data.yaml", "cars"),
        ("yolo:cars/data.yaml,val", "cars"),
        ("csv:cars/train.csv,cars/images", "cars-train"),
        ("photos/cars", "cars"),
    ],
)
def test_a_run_is_named_after_its_data(data, name):
    assert run_name(data) == name


def test_a_folder_may_be_given_as_a_path(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2,class\na.png,1,2,11,12,cat\n")
    assert open_source(tmp_path).class_names == open_source(str(tmp_path)).class_names == ("cat",)
    with pytest.raises(ValueError, match=r"got '.*boxes\.csv'; did you mean 'csv:.*boxes\.csv'\?"):
        open_source(tmp_path / "boxes.csv")
