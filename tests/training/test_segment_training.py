"""Tests a whole run with task segments: two steps, an evaluation, what the commands make of it, and what they refuse."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import kfpn
from kfpn.cli import command_line as cli
from kfpn.config.presets import preset
from kfpn.config.run import Config, InputConfig
from kfpn.evaluation.segment_recall import SEGMENT_RECALLS
from kfpn.inference.evaluate_segments import measure_segments, open_segment_pass
from kfpn.losses.training_losses import training_functions
from kfpn.modeling.networks import build_network
from kfpn.plotting.segment_page import draw_segment_page
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.nonfinite.diagnose import diagnose
from kfpn.training.optimizer import Optimizer
from kfpn.training.step import build_train_step
from kfpn.training.train import train
from tests.eager import eagerly
from tests.training import made_up
from tests.training.made_up import source, with_masks
from tests.training.test_mask_training import batch_of


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    base = preset("shapes")
    small = {"backbone_width": 8, "pyramid_channels": 16, "segment_width": 16, "max_segments": 80, "num_classes": 2}
    return replace(
        base,
        workdir=str(tmp_path_factory.mktemp("segments")),
        steps=2,
        batch_size=2,
        log_every=1,
        jit_compile=False,
        samples=1,
        val_loss=True,
        model=replace(base.model, task="segments", **small),
        input=InputConfig(64, 64),
        sampling=replace(base.sampling, segment_batch=32),
    )


@pytest.fixture(scope="module")
def validation():
    return source(100, 2, kind=with_masks)


@pytest.fixture(scope="module")
def final(config, validation):
    return train(config, source(0, 4, kind=with_masks), validation)


def test_a_run_measures_the_recall_of_segments_and_keeps_the_best_by_ar_at_100(config, final):
    workdir = Path(config.workdir)
    assert {*SEGMENT_RECALLS, "segment_score", "segment_mask", "loss", "val_loss", "val_segment_mask"} <= final.keys()
    assert final["best_by"] == "AR@100"
    assert final["loss"] == pytest.approx(final["segment_score"] + final["segment_mask"], rel=1e-4)
    assert "proposals" not in final
    assert {path.name for path in workdir.iterdir()} == {
        ".lock", "checkpoints", "classes.json", "config.json", "curves.png", "data.json", "detector.weights.h5", "final.json",
        "metrics.jsonl", "samples", "tensorboard",
    }  # fmt: skip
    assert json.loads((workdir / "config.json").read_text())["model"]["task"] == "segments"
    with Image.open(workdir / "samples" / "000.png") as picture:
        assert min(picture.size) > 64


def test_a_run_that_goes_on_has_finished_and_evaluation_gives_its_figures(config, final, validation, capsys):
    assert train(config, source(0, 4, kind=with_masks), validation) == final
    assert "has finished its 2 steps" in capsys.readouterr().out
    recall = measure_segments(config.workdir, open_segment_pass(config.workdir, validation))
    assert recall == pytest.approx({name: final[name] for name in SEGMENT_RECALLS}, nan_ok=False)


def test_steps_learn_scores_and_masks(config):
    learning = replace(
        config, batch_size=4, optimizer=replace(config.optimizer, learning_rate=0.1, warmup_steps=0, ema_decay=0.0)
    )
    submodels = build_network(learning)
    optimizer = Optimizer(learning, submodels.weights_model.trainable_variables)
    step = build_train_step(submodels, learning, optimizer, make_strategy("one_device"), *training_functions(learning))
    batch = batch_of(learning)
    rows = [step(batch) for _ in range(16)]
    first, last = ({name: float(value) for name, value in row.items()} for row in (rows[0], rows[-1]))
    assert first["segment_score"] == pytest.approx(np.log(2), abs=0.05)
    assert first["segment_mask"] == pytest.approx(10 * np.log(2), abs=0.1)
    assert last["segment_score"] < first["segment_score"]
    assert last["segment_mask"] < first["segment_mask"] - 0.1
    finding = diagnose(submodels, learning, batch, optimizer.loss_scale, *training_functions(learning))
    assert finding.first is None


def test_predict_writes_the_best_segments_with_their_run_lengths(config, final, tmp_path, capsys, validation):
    Image.fromarray(validation[0].image).save(tmp_path / "one.png")
    words = ["predict", str(tmp_path / "one.png"), "--workdir", config.workdir, "--output", str(tmp_path / "out")]
    assert cli.main([*words, "--max-detections", "7"]) == 0
    assert "segments: 7; images: 1 of 1" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(rows) == 7
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    model = kfpn.load_segmenter(config.workdir)
    outputs = model.predict(validation[0].image[None].astype("float32"), verbose=0)
    for number, row in enumerate(rows):
        assert row["score"] == pytest.approx(float(outputs["scores"][0, number]), abs=1e-5)
        assert row["level"] == f"P{outputs['levels'][0, number]}"
        pasted = kfpn.paste_masks(outputs["masks"][0, number][None], outputs["boxes"][0, number][None], 64, 64)
        assert (coco_mask.decode(row["segmentation"]) != pasted[0]).mean() < 1e-3
    assert (tmp_path / "out" / "one.png").exists()
    assert cli.main([*words, "--tiles", "64"]) == 2
    assert "tiles must be left out" in capsys.readouterr().err
    assert cli.main([*words, "--max-detections", "7", "--scales", "64,96", "--flip"]) == 0
    said = capsys.readouterr().out
    assert "segments: 7; images: 1 of 1" in said
    assert "image pyramid: 4 passes (64, 96; each mirrored too), " in said
    best = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(best) == 7
    assert all(one["score"] >= row["score"] - 1e-6 for one, row in zip(best, rows, strict=True))


def test_evaluate_prints_and_writes_the_recall(config, final, validation, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kfpn.inference.evaluate_segments.formats.open_source", lambda *_: validation)
    words = ["evaluate", "--workdir", config.workdir, "--data", "mine"]
    assert cli.main([*words, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert f"AR@100 {figures['AR@100']:.4f}" in capsys.readouterr().out
    assert list(figures) == list(SEGMENT_RECALLS)
    assert cli.main([*words, "--scales", "64", "--json", str(tmp_path / "one.json")]) == 0
    assert "image pyramid: 1 pass (64), " in capsys.readouterr().out
    one_pass = json.loads((tmp_path / "one.json").read_text())
    assert one_pass.pop("image_pyramid")["passes"] == 1
    assert one_pass == figures
    assert cli.main([*words, "--best-thresholds"]) == 2
    assert "best-thresholds must be left out" in capsys.readouterr().err


def test_visualize_draws_the_best_of_each_level_and_of_each_kind_of_window(
    config, final, validation, tmp_path, capsys, monkeypatch
):
    Image.fromarray(validation[0].image).save(tmp_path / "one.png")
    shown = []

    def draw(image, levels, best, path):
        shown.append((levels, best))
        if len(shown) == 1:
            draw_segment_page(image, levels, best, path)

    monkeypatch.setattr("kfpn.inference.inspect_segments.draw_segment_page", draw)
    words = ["visualize", str(tmp_path / "one.png"), "--workdir", config.workdir, "--output", str(tmp_path)]
    assert cli.main([*words, "--proposals", "3"]) == 0
    assert f"one.png -> {tmp_path / 'one_pyramid.png'}" in capsys.readouterr().out
    assert (tmp_path / "one_pyramid.png").exists()
    levels, best = shown[0]
    assert [(one.kind, one.level) for one in levels] == [
        (kind, f"P{level}") for kind in ("5x5", "7x7") for level in range(2, 7)
    ]
    assert sum(one.total for one in levels) == 80
    assert [len(one.best.scores) for one in levels] == [min(3, one.total) for one in levels]
    for one in levels:
        assert set(one.best.names) <= {one.level}
        np.testing.assert_allclose(one.best.windows[:, 2:] - one.best.windows[:, :2], one.reach * one.size, rtol=1e-5)
    assert best.scores[0] == max(one.best.scores[0] for one in levels if one.total)
    assert cli.main([*words, "--min-score", "1"]) == 0
    assert not any(len(one.best.scores) for one in shown[1][0])


@pytest.mark.parametrize(
    "words",
    [
        ["proposals", "--workdir", "{run}", "--output", "{tmp}/proposals.npz"],
        ["report", "--workdir", "{run}", "--output", "{tmp}/report.html"],
    ],
    ids=lambda words: words[0],
)
def test_other_commands_say_that_they_take_detectors_alone(config, final, tmp_path, words, capsys):
    places = {"{tmp}": str(tmp_path), "{run}": config.workdir}
    line = words
    for place, path in places.items():
        line = [word.replace(place, path) for word in line]
    assert cli.main(line) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "workdir must hold a detector, got" in said
    assert "which was trained with --task segments" in said


def test_python_says_so_too(config, final, tmp_path):
    for load in (kfpn.load_detector, kfpn.load_submodels, kfpn.evaluate):
        with pytest.raises(ValueError, match=r"must hold a detector|must be detections for a detector"):
            load(config.workdir)
    with pytest.raises(ValueError, match=r"workdir must be a folder, got .*which does not exist"):
        kfpn.load_segmenter(tmp_path / "none")


def test_a_run_of_before_the_field_was_there_is_one_of_a_detector(tmp_path):
    run = Workdir(tmp_path)
    run.config.write_text(json.dumps({"model": {"backbone": "resnet18"}, "steps": 3}))
    assert run.read_config().model.task == "detections"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposals": "some.npz"}, "proposals must be left out with model.task segments, got some.npz"),
        ({"input": InputConfig(tile=640)}, "input.tile must be left out with model.task segments, got 640"),
    ],
)
def test_options_that_do_not_go_with_segments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Config(model=dataclasses.replace(Config().model, task="segments")), **changes)


def test_exact_targets_and_data_without_masks_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"sampling.mask_targets must be grid with model.task segments, got polygons"):
        replace(config, sampling=replace(config.sampling, mask_targets="polygons"))
    with pytest.raises(
        ValueError, match=r"must have objects with masks for --task segments, got none: leave --task out"
    ):
        train(replace(config, workdir=str(tmp_path / "none")), made_up.source(0, 4), made_up.source(100, 2))


def test_the_command_line_gives_the_pyramid_the_papers_channels_and_small_scenes_their_rate():
    assert cli.train_defaults(["train", "--task", "segments", "--preset", "paper"]).model.pyramid_channels == 128
    assert cli.train_defaults(["train", "--model.task=segments"]).model.pyramid_channels == 64
    assert cli.train_defaults(["train", "--preset", "paper"]).model.pyramid_channels == 256
    rates = {
        line: cli.train_defaults(["train", *line.split()]).optimizer.learning_rate
        for line in ("--task segments", "--task detections", "--task segments --preset paper")
    }
    assert rates == {"--task segments": 0.2, "--task detections": 0.1, "--task segments --preset paper": 0.03}
