import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import keras
import pytest

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, to_dict
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.load import load_trained_detector
from kfpn.runs.workdir import Workdir, compare_configs
from tests.training import standin

TINY = ModelConfig(num_classes=2, backbone="resnet18", backbone_width=8, pyramid_channels=8, head_width=8)
CLASSES = {"class_names": ("a", "b"), "category_ids": (1, 2), "data": "records"}


def prepared(path):
    workdir = Workdir(path)
    workdir.check_writable()
    workdir.prepare(standin.config(), **CLASSES)
    return workdir


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"workdir must be a folder that can be written, got .*file/run"):
        Workdir(tmp_path / "file" / "run").check_writable()


def test_options_that_act_on_weights_must_stay_the_same_and_changes_are_named(tmp_path):
    config = standin.config()
    workdir = Workdir(tmp_path)
    workdir.prepare(config, **CLASSES)
    workdir.weights.touch()
    other = replace(config, steps=9, model=replace(config.model, norm="gn"))
    with pytest.raises(ValueError, match=r"model\.norm: 'frozen_bn' -> 'gn'; steps: 6 -> 9\. .*another --workdir"):
        workdir.prepare(other, **CLASSES)
    assert json.loads(workdir.config.read_text()) == to_dict(config)


def test_the_options_of_a_run_without_checkpoints_may_be_corrected(tmp_path):
    config = standin.config()
    workdir = Workdir(tmp_path)
    workdir.prepare(config, **CLASSES)
    corrected = replace(config, steps=9)
    workdir.prepare(corrected, ("a", "c"), (1, 2), "records")
    assert json.loads(workdir.config.read_text()) == to_dict(corrected)
    workdir.checkpoints.mkdir()
    (workdir.checkpoints / "step_00000002.npz").touch()
    with pytest.raises(ValueError, match="steps: 9 -> 6"):
        workdir.prepare(config, ("a", "c"), (1, 2), "records")


def test_a_field_that_an_old_config_lacks_has_its_default(tmp_path):
    workdir, config = Workdir(tmp_path), standin.config()
    old = to_dict(config)
    del old["model"]["roi_size"]
    tmp_path.mkdir(exist_ok=True)
    workdir.config.write_text(json.dumps(old))
    workdir.weights.touch()
    workdir.append_metrics({"step": 1})
    workdir.prepare(config, **CLASSES)
    with pytest.raises(ValueError, match=r"model\.roi_size: 7 -> 9"):
        workdir.prepare(replace(config, model=replace(config.model, roi_size=9)), **CLASSES)


def test_more_steps_are_refused_with_the_way_to_train_on(tmp_path):
    workdir, config = Workdir(tmp_path), standin.config()
    workdir.prepare(config, **CLASSES)
    workdir.weights.touch()
    with pytest.raises(
        ValueError, match=r"steps: 6 -> 60\. .*can't be made longer.*; --init .* with another --workdir"
    ) as error:
        workdir.prepare(replace(config, steps=60), **CLASSES)
    assert f"--init {tmp_path} " in str(error.value)


@pytest.mark.parametrize("path", ["gs://bucket/run", "s3://bucket/run", Path("gs://bucket/run"), "file:///tmp/run"])
def test_an_address_of_another_machine_makes_no_folder(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"workdir must be a place on this machine, got the address '(gs|s3|file):/.*: copy it"
    ):
        Workdir(path)
    assert not any(tmp_path.iterdir())


def test_options_that_do_not_act_on_weights_may_change(tmp_path):
    config = standin.config()
    changed = replace(config, log_every=50, eval_every=7, checkpoint_every=9, samples=0, strategy="one_device")
    workdir = Workdir(tmp_path)
    workdir.prepare(config, **CLASSES)
    workdir.prepare(changed, **CLASSES)
    assert compare_configs(to_dict(config), to_dict(changed)) == []
    assert json.loads(workdir.config.read_text()) == to_dict(changed)


def test_the_steps_of_a_run_of_minutes_are_what_was_planned_and_its_minutes_stay(tmp_path):
    config = replace(standin.config(), minutes=2.0, eval_every=None, checkpoint_every=None)
    workdir = Workdir(tmp_path)
    workdir.prepare(config, **CLASSES)
    workdir.weights.touch()
    workdir.append_metrics({"step": 1})
    workdir.keep_steps(77)
    assert workdir.read_config() == replace(config, steps=77)
    workdir.prepare(replace(config, patience=3, val_loss=True), **CLASSES)
    with pytest.raises(ValueError, match=r"minutes: 2\.0 -> 4\.0\. .*minutes set the learning rate of every step"):
        workdir.prepare(replace(config, minutes=4.0), **CLASSES)


@pytest.mark.parametrize(("norm", "warned"), [("sync_bn", True), ("bn", True), ("gn", False), ("frozen_bn", False)])
def test_another_number_of_parts_a_batch_causes_a_warning_if_it_acts_on_weights(tmp_path, norm, warned):
    workdir, config = Workdir(tmp_path), standin.config(norm=norm)
    workdir.prepare(config, **CLASSES)
    workdir.weights.touch()
    workdir.append_metrics({"step": 1})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        workdir.prepare(replace(config, accumulate=2), **CLASSES)
    assert any("accumulate: 1 -> 2" in str(warning.message) for warning in caught) == warned


def test_other_classes_are_refused(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.prepare(standin.config(), **CLASSES)
    workdir.weights.touch()
    with pytest.raises(ValueError, match="class_names"):
        workdir.prepare(standin.config(), ("a", "c"), (1, 2), "records")


def test_rows_after_the_restored_step_and_incomplete_rows_are_removed(tmp_path):
    workdir = Workdir(tmp_path)
    for row in (
        {"step": 2},
        {"step": 2, "AP": 0.5},
        {"step": 4, "loss": float("nan")},
        {"step": 4, "AP": 0.6},
        {"step": 4, "AR@100": 0.6, "best_by": "AR@100"},
        {"step": 6},
    ):
        workdir.append_metrics(row)
    with open(workdir.metrics, "a") as file:
        file.write('[4]\n{"AP": 0.5}\n{"step": 3, "lo')
    workdir.drop_metrics_after(4, evaluated=2)
    rows = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    assert rows == [{"step": 2}, {"step": 2, "AP": 0.5}, {"step": 4, "loss": None}]


def test_saved_weights_replace_the_old_file(tmp_path):
    workdir, parts = Workdir(tmp_path), standin.submodels()
    for _ in range(2):
        workdir.save_weights(parts.weights_model)
    assert [path.name for path in tmp_path.iterdir()] == ["detector.weights.h5"]
    keras.utils.set_random_seed(0)
    parts.weights_model.load_weights(workdir.weights)


def test_the_error_of_loading_names_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_trained_detector(tmp_path / "none")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_trained_detector(tmp_path)
    Workdir(tmp_path).prepare(standin.config(), **CLASSES)
    with pytest.raises(ValueError, match="no evaluation has finished yet"):
        load_trained_detector(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("trained"))
    config = Config(model=TINY)
    workdir.prepare(config, **CLASSES)
    workdir.save_weights(build_submodels(TINY).weights_model)
    return workdir


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", r"config\.json must be JSON"),
        ("config.json", b"\xff", r"config\.json must be JSON"),
        ("config.json", b"[]", r"config\.json must be a JSON object, got a list"),
        ("config.json", b'{"stepz": 3}', r"config\.json: unknown option 'stepz'; did you mean 'steps'"),
        ("config.json", b'{"model": 3}', r"config\.json: model must be a section of options, got 3"),
        ("classes.json", b"{}", r"classes\.json must have lists class_names and category_ids"),
        ("detector.weights.h5", b"junk", r"weights\.h5 must be weights that Keras saved, got a damaged file"),
        ("detector.weights.h5", None, r"weights\.h5 must be weights that Keras saved, got a damaged file"),
    ],
)
def test_damaged_files_are_named(trained, tmp_path, file, content, message):
    shutil.copytree(trained.path, tmp_path, dirs_exist_ok=True)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ValueError, match=message):
        load_trained_detector(tmp_path)


def test_weights_of_another_detector_are_refused_in_one_line(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path, dirs_exist_ok=True)
    assert load_trained_detector(tmp_path).class_names == CLASSES["class_names"]
    for other in (replace(TINY, head_width=16), replace(TINY, backbone="resnet34")):
        Workdir(tmp_path).config.write_text(json.dumps(to_dict(Config(model=other))))
        with pytest.raises(
            ValueError, match=r"weights\.h5 must fit the detector that .*config\.json describes"
        ) as error:
            load_trained_detector(tmp_path)
        assert "\n" not in str(error.value)


def test_weights_without_their_checkpoints_are_not_trained_over(tmp_path):
    workdir = prepared(tmp_path / "run")
    workdir.weights.write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"must hold the checkpoints of its run.*--init .*run trains further"):
        prepared(workdir.path)
    assert workdir.weights.read_bytes() == b"weights"


def test_a_run_that_was_stopped_before_its_first_checkpoint_may_begin_again(tmp_path):
    workdir = prepared(tmp_path / "run")
    workdir.weights.write_bytes(b"weights of an evaluation")
    workdir.append_metrics({"step": 1, "AP": 0.1})
    prepared(workdir.path)


def test_a_folder_in_which_nothing_is_but_the_lock_is_removed_after_an_error(tmp_path):
    workdir = Workdir(tmp_path / "run")
    workdir.check_writable()
    workdir.lock.touch()
    with pytest.raises(ValueError, match="refused"), workdir.removed_if_unused():
        raise ValueError("refused")
    assert not workdir.path.exists()
    prepared(workdir.path)
    with pytest.raises(ValueError, match="refused"), workdir.removed_if_unused():
        raise ValueError("refused")
    assert workdir.config.exists()
