import dataclasses
import json

import pytest
from PIL import Image

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config
from kfpn.data.formats import open_source
from kfpn.data.source_masks import boxes_alone
from kfpn.runs.workdir import Workdir
from kfpn.training.run_data import open_run_data


@pytest.fixture
def names(tmp_path):
    """Writes two files of one image: the classes of the second stand in another order. Returns their names as data sets."""
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    pets = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": pets,
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    content["categories"] = [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}]
    content["annotations"][0]["category_id"] = 1
    (tmp_path / "b.json").write_text(json.dumps(content))
    return f"coco:{tmp_path}/a.json", f"coco:{tmp_path}/b.json"


def opened(names, tmp_path):
    config = Config(data=names[0], val_data=names[1], workdir=str(tmp_path / "run"))
    return open_run_data(config, None, None)


def test_data_without_a_mask_are_refused_for_a_mask_head(names, tmp_path):
    config = Config(data=names[0], val_data=names[1], workdir=str(tmp_path / "run"), model=ModelConfig(mask=True))
    with pytest.raises(ValueError, match=r"a.json must have objects with masks for --mask, got none: leave --mask out"):
        open_run_data(config, None, None)


def test_of_a_source_that_was_opened_without_masks_it_is_said_how_to_read_them(names, tmp_path):
    config = Config(workdir=str(tmp_path / "run"), model=ModelConfig(mask=True))
    source = open_source(names[0], "train")
    with pytest.raises(
        ValueError, match=r"got none: leave .*; in Python, kfpn.open_source\(..., masks=True\) reads them"
    ):
        open_run_data(config, source, None)
    assert boxes_alone(source).endswith("measured of boxes alone; kfpn.open_source(..., masks=True) reads them")
    assert boxes_alone(open_source(names[0], "train", masks=True)).endswith(
        "no object has a mask, so AP is measured of boxes alone"
    )


@pytest.mark.parametrize("model", [{"mask": True}, {"task": "segments"}])
def test_masks_of_crowd_alone_are_none_to_learn_from(names, tmp_path, model):
    content = json.loads((tmp_path / "a.json").read_text())
    of_crowd = {"iscrowd": 1, "segmentation": {"size": [20, 30], "counts": [0, 9, 591]}}
    content["annotations"].append({"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 9], **of_crowd})
    (tmp_path / "a.json").write_text(json.dumps(content))
    config = Config(data=names[0], val_data=names[0], workdir=str(tmp_path / "run"), model=ModelConfig(**model))
    with pytest.raises(ValueError, match=r"a.json must have objects with masks for --.*, got none"):
        open_run_data(config, None, None)


def test_validation_data_without_a_mask_are_warned_of(names, tmp_path):
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"][0]["segmentation"] = [[1, 2, 4, 2, 4, 6]]
    (tmp_path / "a.json").write_text(json.dumps(content))
    config = Config(data=names[0], val_data=names[1], workdir=str(tmp_path / "run"), model=ModelConfig(mask=True))
    with pytest.warns(UserWarning, match=r"b.json: no object has a mask, so AP is measured of boxes alone"):
        assert open_run_data(config, None, None).source[0].masks.exists.all()


def test_validation_data_have_the_labels_of_the_training_data(names, tmp_path):
    data = opened(names, tmp_path)
    assert data.source.class_names == data.val_source.class_names == ("cat", "dog")
    assert data.source[0].labels.tolist() == data.val_source[0].labels.tolist() == [1]


def held(tmp_path, class_names, category_ids):
    """Writes a work directory that a run goes on from, as far as its classes."""
    folder = Workdir(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "step_00000001.npz").touch()
    folder.classes.write_text(json.dumps({"class_names": class_names, "category_ids": category_ids}))


def test_a_run_of_an_older_version_keeps_the_label_of_its_group_category(names, tmp_path):
    held(tmp_path, ["pets", "cat", "dog"], [0, 1, 2])
    data = opened(names, tmp_path)
    assert data.source.class_names == data.val_source.class_names == ("pets", "cat", "dog")
    assert data.source.category_ids == (0, 1, 2)
    assert data.source[0].labels.tolist() == data.val_source[0].labels.tolist() == [2]


@pytest.mark.parametrize(
    ("class_names", "ids"), [(["cat", "dog"], [1, 2]), (["x", "cat", "dog"], [0, 1, 2]), (["cow"], [1])]
)
def test_other_classes_of_a_run_change_nothing(names, tmp_path, class_names, ids):
    held(tmp_path, class_names, ids)
    assert opened(names, tmp_path).source.class_names == ("cat", "dog")


@pytest.fixture
def table(tmp_path):
    """Writes a table of twenty images with a box each, and returns its name as a data set."""
    for i in range(20):
        Image.new("RGB", (30, 20)).save(tmp_path / f"{i}.png")
    rows = "".join(f"{i}.png,1,2,{9 + i % 5},9,cat\n" for i in range(20))
    (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2,class\n" + rows)
    return f"csv:{tmp_path}/boxes.csv"


def ids(source):
    return [source[i].image_id for i in range(len(source))]


def test_data_without_a_validation_split_keep_the_same_images_at_each_start(table, tmp_path):
    config = Config(data=table, workdir=str(tmp_path / "run"))
    first, again = open_run_data(config, None, None), open_run_data(config, None, None)
    assert ids(first.val_source) == ids(again.val_source)
    assert sorted(ids(first.source) + ids(first.val_source)) == list(range(1, 21))
    given = open_run_data(dataclasses.replace(config, val_share=0.1), table, None)
    assert ids(given.val_source) == ids(first.val_source)


def test_a_source_that_is_given_is_split_only_where_a_share_is_asked_for(table, tmp_path):
    config = Config(data=table, workdir=str(tmp_path / "run"))
    with pytest.warns(UserWarning, match=r"no validation data: .* \(--val-share \.1 keeps a tenth of the images"):
        assert open_run_data(config, table, None).val_source is None
    assert len(open_run_data(config, table, table).val_source) == 20
