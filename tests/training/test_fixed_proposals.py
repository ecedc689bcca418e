"""Tests all of `train` with fixed proposals and masks: on a few made-up pictures, for ten steps."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

import kfpn.data.formats
from kfpn.cli import command_line as cli
from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.data.proposal_table import collect_proposals, write_proposals
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.load import load_submodels, load_trained_detector
from kfpn.runs.workdir import Workdir
from kfpn.training.train import train
from tests.eager import eagerly, graphs
from tests.training.made_up import source, with_masks

TRAIN, VALIDATION = source(0, 4, name="seen", kind=with_masks), source(100, 2, name="unseen", kind=with_masks)


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


def near_objects(data, seed):
    """Returns proposals for a source: twelve boxes near each object, and four boxes anywhere."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(len(data)):
        record = data[index]
        near = record.boxes + rng.normal(0, 3, (12, 4))
        start = rng.uniform(0, 40, (4, 2))
        boxes = np.concatenate([near, np.concatenate([start, start + 20], axis=1)]).clip(0, 64).astype(np.float32)
        scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
        rows.append({"image_id": record.image_id, "boxes": boxes, "scores": scores})
    return collect_proposals(data, rows)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fixed")
    write_proposals(folder / "kept.npz", [near_objects(TRAIN, 0), near_objects(VALIDATION, 1)])
    base = preset("shapes")
    small = {"pyramid_channels": 16, "head_width": 32, "post_nms_train": 20, "post_nms_test": 20, "norm": "gn"}
    return replace(
        base,
        data="seen",
        val_data="unseen",
        proposals=str(folder / "kept.npz"),
        workdir=str(folder / "run"),
        steps=10,
        batch_size=4,
        log_every=1,
        jit_compile=False,
        samples=1,
        model=replace(base.model, mask=True, mask_channels=8, **small),
        input=InputConfig(64, 64, flip=0.5),
        sampling=replace(base.sampling, roi_batch=16),
        optimizer=replace(base.optimizer, learning_rate=0.05, warmup_steps=1, weight_decay=0.01),
    )


@pytest.fixture(scope="module")
def final(config):
    return train(config, TRAIN, VALIDATION)


def test_ten_steps_reduce_the_losses_and_there_are_none_of_the_rpn(config, final):
    rows = [json.loads(line) for line in (Path(config.workdir) / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:2])
    assert {"roi_class", "roi_box", "roi_mask", "AP", "mask_AP"} <= final.keys()
    assert not {"rpn_class", "rpn_box", "proposals"} & final.keys()


def test_training_does_not_change_a_bit_of_the_rpns_weights(config, final):
    trained = load_submodels(Workdir(config.workdir))
    keras.utils.set_random_seed(config.seed)
    fresh = build_submodels(replace(config.model, num_classes=2))
    for old, new in zip(fresh.rpn.variables, trained.rpn.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    for old, new in zip(fresh.heads["box"].variables, trained.heads["box"].variables, strict=True):
        assert not np.array_equal(old.numpy(), new.numpy())


def test_evaluate_uses_the_proposals_of_the_runs_file(config, final, tmp_path, monkeypatch):
    opened = {"seen": TRAIN, "unseen": VALIDATION, "other": source(200, 1, name="other")}
    monkeypatch.setattr(kfpn.data.formats, "open_source", lambda data, split, *_: opened[data])
    figures = tmp_path / "figures.json"
    args = ["evaluate", "--workdir", config.workdir, "--json", str(figures)]
    assert cli.main(args) == 0
    assert json.loads(figures.read_text())["AP"] == pytest.approx(final["AP"], abs=1e-6)


def test_evaluate_refuses_other_data_and_a_missing_file_of_proposals(config, final, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kfpn.data.formats, "open_source", lambda data, split, *_: source(200, 1, name="other"))
    args = ["evaluate", "--workdir", config.workdir]
    assert cli.main([*args, "--data", "other"]) == 2
    assert "proposals must be of other, got" in capsys.readouterr().err
    assert cli.main([*args, "--proposals"]) == 2
    assert "which was trained on fixed proposals: it has no trained RPN" in capsys.readouterr().err
    kept = Path(config.proposals)
    kept.rename(tmp_path / "moved")
    try:
        assert cli.main(args) == 2
        assert "kept.npz', which is not there" in capsys.readouterr().err
    finally:
        (tmp_path / "moved").rename(kept)


def test_a_run_that_goes_on_evaluates_with_the_same_proposals(config, final):
    workdir = Workdir(config.workdir)
    workdir.final.unlink()
    workdir.weights.unlink()
    again = train(config, TRAIN, VALIDATION)
    assert again["AP"] == pytest.approx(final["AP"], abs=1e-6)
    assert "proposals" not in again
    assert json.loads(workdir.final.read_text()) == again


def test_a_run_without_a_trained_rpn_is_refused_where_an_rpn_is_needed(config, final):
    with pytest.raises(ValueError, match=r"workdir must hold a trained RPN, got .* trained on the proposals of .*kept"):
        load_trained_detector(config.workdir)


def test_another_run_can_start_from_its_weights(config, final, tmp_path):
    again = replace(config, init=config.workdir, workdir=str(tmp_path / "next"), steps=1)
    with graphs():  # as it is for users
        assert train(again, TRAIN, VALIDATION)["steps"] == 1


def test_bad_proposals_are_refused_before_anything_is_written(config, tmp_path):
    missing = replace(config, proposals=str(tmp_path / "none"), workdir=str(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"none', which is not there"):
        train(missing, TRAIN, VALIDATION)
    with pytest.raises(ValueError, match=r"every image of seen, got none in .*kept\.npz for picture 4;"):
        train(replace(config, workdir=str(tmp_path / "a")), source(0, 6, name="seen", kind=with_masks), VALIDATION)
    with pytest.raises(ValueError, match=r"must be of strange, got .*kept.npz' with those of seen, unseen$"):
        train(replace(config, workdir=str(tmp_path / "a")), TRAIN, source(100, 2, name="strange", kind=with_masks))
    assert not (tmp_path / "a").exists()
