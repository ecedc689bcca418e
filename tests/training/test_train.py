"""Tests all of `train` on a few made-up pictures: with the real data pipeline, a real detector and two steps."""

import json
import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.evaluation.coco_figures import evaluate_coco
from kfpn.evaluation.recall import RECALLS, evaluate_proposals
from kfpn.modeling.fast_rcnn import proposals_model
from kfpn.report.results_file import read_results
from kfpn.runs.load import load_submodels, load_trained_detector
from kfpn.runs.workdir import Workdir
from kfpn.training.frozen_weights import warn_of_frozen_weights
from kfpn.training.train import train
from tests.eager import eagerly
from tests.training.made_up import source


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    base = preset("shapes")
    small = {"backbone_width": 8, "pyramid_channels": 16, "head_width": 16, "pre_nms_train": 20, "post_nms_train": 20}
    return replace(
        base,
        workdir=str(tmp_path_factory.mktemp("run")),
        steps=2,
        batch_size=2,
        log_every=1,
        jit_compile=False,
        samples=1,
        precision="mixed_bfloat16",
        model=replace(base.model, **small, pre_nms_test=20, post_nms_test=20),
        input=InputConfig(64, 64),
        sampling=replace(base.sampling, rpn_batch=16, roi_batch=8),
    )


@pytest.fixture(scope="module")
def final(config):
    return train(config, source(0, 4), source(100, 2))


def test_a_finished_run_has_written_all_its_files(config, final):

    workdir = Path(config.workdir)
    assert {path.name for path in workdir.iterdir()} == {
        ".lock", "checkpoints", "classes.json", "config.json", "curves.png", "data.json", "detections.json", "detector.weights.h5",
        "final.json", "metrics.jsonl", "samples", "tensorboard",
    }  # fmt: skip
    figures = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}
    assert figures | {"loss", "steps", "best_step", "last_AP", "seconds", "images_per_second"} <= final.keys()
    assert json.loads((workdir / "final.json").read_text()) == final
    assert final["last"] == {
        "step": 2,
        **{name: final[name] for name in (*figures, "per_class")},
    }  # the only evaluation
    assert [path.name for path in (workdir / "samples").iterdir()] == ["000.png"]
    assert json.loads((workdir / "config.json").read_text())["model"]["num_classes"] == 2
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "AP" in row) for row in rows] == [(1, False), (2, False), (2, True)]


def test_the_detections_that_were_measured_are_kept(config, final):
    validation = source(100, 2)
    detections = read_results(Workdir(config.workdir).detections, validation)
    assert all(len(of_image["scores"]) for of_image in detections)
    figures = evaluate_coco((validation[i] for i in range(2)), detections, validation.class_names)
    assert {name: figures[name] for name in ("AP", "AR100")} == {name: final[name] for name in ("AP", "AR100")}


def test_final_json_has_the_recall_of_the_saved_weights_proposals(config, final):
    keras.config.set_dtype_policy(config.precision)
    try:
        model = proposals_model(load_submodels(Workdir(config.workdir)), Workdir(config.workdir).read_config().model)
        measured = evaluate_proposals(model, source(100, 2), config, progress=False)
    finally:
        keras.config.set_dtype_policy("float32")
    assert tuple(final["proposals"]) == RECALLS
    assert final["proposals"] == measured
    assert 0.0 < final["proposals"]["AR@1000"] <= 1.0
    assert final["proposals"]["ARl@1000"] is None


def test_training_restores_the_dtype_policy(config, final):
    assert keras.config.dtype_policy().name == "float32"


def test_the_trained_detector_loads_with_its_classes(config, final):
    model = load_trained_detector(config.workdir)
    assert (model.class_names, model.category_ids) == (("green", "red"), (1, 2))
    outputs = model(source(0, 1)[0].image[None])
    assert outputs["boxes"].shape == (1, 100, 4)


def test_training_a_finished_run_prints_that_it_is_finished_and_returns_its_figures(config, final, capsys):
    assert train(config, source(0, 4), source(100, 2)) == final
    assert "has finished its 2 steps" in capsys.readouterr().out


def test_files_that_were_removed_or_damaged_after_the_end_are_written_again(config, final):
    workdir = Path(config.workdir)
    (workdir / "final.json").write_text("{")
    (workdir / "detector.weights.h5").unlink()
    again = train(config, source(0, 4), source(100, 2))
    assert {name: again[name] for name in ("AP", "best_step", "steps", "proposals")} == {
        name: final[name] for name in ("AP", "best_step", "steps", "proposals")
    }
    assert json.loads((workdir / "final.json").read_text()) == again
    assert load_trained_detector(config.workdir).class_names == ("green", "red")


def test_other_options_for_the_same_folder_are_refused_and_named(config, final):
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate: 0\.1 -> 0\.5"):
        train(replace(config, optimizer=replace(config.optimizer, learning_rate=0.5)), source(0, 4), source(100, 2))


def test_data_that_changed_since_the_run_began_is_refused(config, final):
    with pytest.raises(ValueError, match=r"changes in images: 4 -> 3, .*objects: 4 -> 3.* start anew .* --init "):
        train(config, source(0, 3), source(100, 2))


def test_a_signal_before_the_first_step_ends_the_run_with_one_line(config, tmp_path, monkeypatch, capsys):
    def open_source(data, split, *_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError

    monkeypatch.setattr("kfpn.data.formats.open_source", open_source)
    with pytest.raises(SystemExit) as stop:
        train(replace(config, workdir=str(tmp_path)))
    assert stop.value.code == 0
    assert "nothing is lost; run the same command to go on" in capsys.readouterr().out


def test_validation_data_must_have_the_same_classes(config):
    with pytest.raises(
        ValueError,
        match=r"val_data must have the classes of data \(green, red\), got green, blue: records alone has 'red'; records alone has 'blue'",
    ):
        train(config, source(0, 4), source(100, 2, ("green", "blue")))


def test_without_validation_data_there_is_no_recall(config, tmp_path):
    with pytest.warns(UserWarning, match="no validation data"):
        final = train(replace(config, workdir=str(tmp_path), steps=1), source(0, 4))
    assert "proposals" not in final
    assert "proposals" not in json.loads((tmp_path / "final.json").read_text())


def test_a_new_run_with_coco_is_warned_of_and_an_old_one_goes_on_silently(config, tmp_path, monkeypatch):
    monkeypatch.setattr("kfpn.training.train._train_opened", lambda setup: {})
    run = replace(config, workdir=str(tmp_path / "run"), preset="coco")
    with pytest.warns(
        FutureWarning,
        match=r"^--preset coco is not detectron2_1x, which differs in .*input\.keep_empty True \(there False\)",
    ):
        train(run, source(0, 4), source(100, 2))
    Workdir(run.workdir).checkpoints.mkdir()
    (Workdir(run.workdir).checkpoints / "step_1.npz").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        train(run, source(0, 4), source(100, 2))
        train(replace(config, workdir=str(tmp_path / "other")), source(0, 4), source(100, 2))


def test_crowded_images_are_warned_of_by_the_settings_that_were_chosen(config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("kfpn.training.train._train_opened", lambda setup: {})
    (one,) = source(100, 1)
    places = np.array([[0.0, 0, 9, 9], [20, 0, 29, 9], [0, 20, 9, 29]], np.float32)
    three = replace(
        one, boxes=places, labels=np.zeros(3, np.int32), crowd=np.zeros(3, bool), areas=np.full(3, 81.0, np.float32)
    )
    crowded = IterableSource([three], ("green", "red"), name="crowded")

    def with_limit(limit):
        model = replace(config.model, max_detections=limit, post_nms_test=limit, pre_nms_test=limit)
        return replace(config, model=model, workdir=str(tmp_path / str(limit)))

    for limit, warned in ((1, True), (3, False)):
        train(with_limit(1), source(0, 4), crowded, choose=lambda *_, limit=limit: with_limit(limit))
        assert ("images with more objects than the detector can give" in caplog.text) == warned
        caplog.clear()


def test_frozen_stages_and_norms_of_an_untrained_detector_cause_a_warning():
    with pytest.warns(UserWarning, match=r"freeze_stages 2 and model\.norm frozen_bn"):
        warn_of_frozen_weights(preset("coco"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_frozen_weights(preset("shapes"))
