import json
from dataclasses import replace

import keras
import pytest
import standin

from kfpn.config import to_dict
from kfpn.engine.workdir import Workdir, compare_configs, load_detector

CLASSES = {"class_names": ("a", "b"), "category_ids": (1, 2), "data": "records"}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"workdir must be a folder that can be written, got .*file/run"):
        Workdir(tmp_path / "file" / "run").check_writable()


def test_options_that_act_on_weights_must_agree_and_are_named(tmp_path):
    config = standin.config()
    workdir = Workdir(tmp_path)
    workdir.prepare(config, **CLASSES)
    other = replace(config, steps=9, model=replace(config.model, norm="gn"))
    with pytest.raises(ValueError, match=r"model\.norm: 'frozen_bn' -> 'gn'; steps: 6 -> 9\. .*another --workdir"):
        workdir.prepare(other, **CLASSES)
    assert json.loads(workdir.config.read_text()) == to_dict(config)


def test_options_that_do_not_act_on_weights_may_change(tmp_path):
    config = standin.config()
    changed = replace(config, log_every=50, eval_every=7, checkpoint_every=9, samples=0, strategy="one_device")
    workdir = Workdir(tmp_path)
    workdir.prepare(config, **CLASSES)
    workdir.prepare(changed, **CLASSES)
    assert compare_configs(to_dict(config), to_dict(changed)) == []
    assert json.loads(workdir.config.read_text()) == to_dict(changed)


def test_other_classes_are_refused(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.prepare(standin.config(), **CLASSES)
    with pytest.raises(ValueError, match="class_names"):
        workdir.prepare(standin.config(), ("a", "c"), (1, 2), "records")


def test_rows_after_the_restored_step_and_half_rows_go(tmp_path):
    workdir = Workdir(tmp_path)
    for row in (
        {"step": 2},
        {"step": 2, "AP": 0.5},
        {"step": 4, "loss": float("nan")},
        {"step": 4, "AP": 0.6},
        {"step": 6},
    ):
        workdir.append_metrics(row)
    with open(workdir.metrics, "a") as file:
        file.write('{"step": 3, "lo')
    workdir.drop_metrics_after(4, evaluated=2)
    rows = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    assert rows == [{"step": 2}, {"step": 2, "AP": 0.5}, {"step": 4, "loss": None}]


def test_weights_replace_the_old_ones_whole(tmp_path):
    workdir, parts = Workdir(tmp_path), standin.submodels()
    for _ in range(2):
        workdir.save_weights(parts.weights_model)
    assert [path.name for path in tmp_path.iterdir()] == ["detector.weights.h5"]
    keras.utils.set_random_seed(0)
    parts.weights_model.load_weights(workdir.weights)


def test_loading_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_detector(tmp_path / "none")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_detector(tmp_path)
    Workdir(tmp_path).prepare(standin.config(), **CLASSES)
    with pytest.raises(ValueError, match="no evaluation has finished yet"):
        load_detector(tmp_path)
