"""Tests what goes wrong outside of the steps: no room for pictures and final.json, data that changes, signals while compiling."""

import errno
import itertools
import json
import math
import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.cli import command_line as cli
from kfpn.config.run import InputConfig
from kfpn.data.fingerprint import fingerprint
from kfpn.data.formats.coco import CocoSource
from kfpn.data.pipeline import named_errors, train_batches
from kfpn.runs.checkpoint import Progress
from kfpn.runs.workdir import Workdir
from kfpn.training import results, validation_run
from kfpn.training import train as engine
from kfpn.training.loop import Loop
from kfpn.training.progress import ProgressReport
from tests.training import standin
from tests.training.kills import OPTIONS, begin, finish, write_data
from tests.training.made_up import source
from tests.training.test_loop import start

FULL = OSError(errno.ENOSPC, "No space left on device")


def full(*_, **__):
    raise FULL


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def test_an_evaluation_is_kept_if_there_is_no_room_for_pictures_and_curves(tmp_path, monkeypatch):
    pictures = source(0, 1)
    detections = {"image_id": 0, "boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    monkeypatch.setattr(validation_run, "inference_model", lambda *_, **__: None)
    monkeypatch.setattr(validation_run, "detect_function", lambda _: None)
    monkeypatch.setattr(validation_run, "evaluate_source", lambda *_, **__: ({"AP": 0.5}, [detections]))
    workdir = Workdir(tmp_path)
    workdir.append_metrics({"step": 3, "AP": 0.5})
    evaluate = validation_run.ValidationRun(replace(standin.config(), samples=1), workdir, None, pictures)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)  # matplotlib writes its PNG with it as well
        with pytest.warns(UserWarning, match="can.t be written") as caught:
            assert evaluate(3) == {"AP": 0.5}
    texts = " ".join(str(warning.message) for warning in caught)
    assert "samples can't be written" in texts
    assert "curves.png can't be written" in texts
    assert evaluate(3) == {"AP": 0.5}
    assert workdir.curves.exists()
    assert [path.name for path in workdir.samples.iterdir()] == ["000.png"]


def test_if_there_is_no_room_for_final_json_the_error_says_what_is_saved(tmp_path, monkeypatch):
    workdir = Workdir(tmp_path)
    workdir.append_metrics({"step": 6, "loss": 1.0})
    progress = Progress(6, 12.0, 6, {"AP": 0.5}, 6, {"AP": 0.5}, {"step": 6, "loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr("kfpn.runs.atomic_files.os.replace", full)
        with pytest.raises(
            ValueError, match=r"room for final\.json, got: .*No space left.*final\.json.*All else is saved"
        ):
            results.write_final(standin.config(), workdir, progress)
    assert not list(tmp_path.glob("final.json*"))
    assert results.write_final(standin.config(), workdir, progress) == json.loads(workdir.final.read_text())


@pytest.mark.parametrize("clock", [lambda: 7.0, itertools.count(0, 1e-12).__next__], ids=["stands", "crawls"])
def test_times_and_rates_are_finite_if_the_clock_hardly_moves(tmp_path, monkeypatch, clock):
    with monkeypatch.context() as patch:
        patch.setattr("kfpn.training.step_metrics.time.monotonic", clock)
        _, progress = start(tmp_path, standin.config())
    final = results.write_final(standin.config(), Workdir(tmp_path), progress)
    for name in ("seconds", "images_per_second"):
        assert math.isfinite(final[name])
        assert final[name] >= 0.0


def test_a_run_ends_with_the_same_bits_after_an_image_was_missing_for_a_while(tmp_path, data, monkeypatch):
    folder = tmp_path / "data"
    pictures = CocoSource(folder / "train.json", folder / "train")
    config = replace(
        standin.config(batch_size=2, steps=24), input=InputConfig(64, 64), checkpoint_every=8, eval_every=100
    )
    small, train = standin.losses, Loop.train

    def losses(submodels, config, batch, noise):
        return small(submodels, config, {**batch, "images": batch["images"][:, ::8, ::8]}, noise)

    monkeypatch.setattr(standin, "losses", losses)
    monkeypatch.setattr(standin, "batches", lambda config, step: train_batches(pictures, config, step))
    monkeypatch.setattr(Loop, "train", lambda loop, open_at: train(loop, lambda step: named_errors(open_at(step))))
    whole, _ = start(tmp_path / "whole", config)
    image, aside = folder / "train" / "3.png", folder / "3.png"

    def remove(step):
        if step == 2:
            os.replace(image, aside)

    with pytest.raises(ValueError, match=r"3\.png.*does not exist"):
        start(tmp_path / "parts", config, interfere=remove)
    kept = [int(path.stem[5:]) for path in (tmp_path / "parts" / "checkpoints").iterdir()]
    assert 2 < max(kept) < 24
    os.replace(aside, image)
    parts, progress = start(tmp_path / "parts", config)
    assert progress.step == 24
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


def change(path, index, **fields):
    content = json.loads(path.read_text())
    content["annotations"][index].update(fields)
    path.write_text(json.dumps(content))


def command_line(tmp_path, data):
    return cli.main(["train", *OPTIONS, *data, "--steps", "2", "--workdir", str(tmp_path / "run")])


@pytest.fixture
def begun(tmp_path, data, monkeypatch):
    """Makes a work directory that seems to hold a begun training, although no network was built."""
    monkeypatch.setattr(engine, "_train_opened", lambda *_: {})
    assert command_line(tmp_path, data) == 0
    workdir = Workdir(tmp_path / "run")
    workdir.weights.touch()
    workdir.append_metrics({"step": 1})


def test_annotations_that_changed_between_restarts_are_refused_and_the_change_is_named(tmp_path, data, begun, capsys):
    change(tmp_path / "data" / "train.json", 0, bbox=[1, 2, 30, 40])
    assert command_line(tmp_path, data) == 2
    error = capsys.readouterr().err
    assert "train.json" in error
    assert "changes in boxes: a run is a function of its data" in error
    assert "--init" in error


def test_validation_data_that_changed_between_restarts_causes_one_warning(tmp_path, data, begun, capsys):
    change(tmp_path / "data" / "val.json", 1, category_id=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert command_line(tmp_path, data) == 0
        texts = [str(warning.message) for warning in caught if "validation data changed" in str(warning.message)]
    assert len(texts) == 1
    assert "in labels: AP from here on is not that of before" in texts[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the validation data")
        assert command_line(tmp_path, data) == 0


def test_an_older_run_without_a_fingerprint_of_its_validation_data_goes_on(tmp_path, data, begun):
    workdir = Workdir(tmp_path / "run")
    old = json.loads(workdir.data.read_text())
    validation = CocoSource(tmp_path / "data" / "val.json", tmp_path / "data" / "val", masks=True)
    assert old.pop("validation") == fingerprint(validation)
    workdir.data.write_text(json.dumps(old))
    assert command_line(tmp_path, data) == 0


def test_a_signal_while_the_first_step_is_traced_saves_that_step(tmp_path, monkeypatch, capsys):
    good, sent = standin.losses, []

    def interrupted(*args):
        if not sent:  # the Python code of a step runs once, while the step is traced
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return good(*args)

    monkeypatch.setattr(standin, "losses", interrupted)
    with pytest.raises(SystemExit) as stop:
        start(tmp_path, replace(standin.config(), jit_compile=True))
    assert stop.value.code == 0
    assert "saved at step 1 of 6; run the same command to go on" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--jit-compile"]], ids=["traced", "compiled"])
def test_sigterm_during_the_first_compilation_ends_the_command_with_one_line(tmp_path, data, more):
    process = begin(tmp_path / "run", data, 4, *more)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "the step for images of" in line:
            process.send_signal(signal.SIGTERM)
            break
    assert "saved at step 1 of 4; run the same command to go on" in finish(process), lines


def test_rows_and_events_are_written_into_a_folder_whose_name_is_not_utf8(tmp_path):
    workdir = Workdir(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    workdir.check_writable()
    report = ProgressReport(workdir, 0, 2)
    report.train_row({"step": 2, "loss": 1.0, "images_per_second": 1.0})
    report.close()
    assert workdir.metrics.exists()
    (events,) = workdir.tensorboard.iterdir()
    assert events.stat().st_size > 0
    assert len(list(tf.data.TFRecordDataset(os.fsencode(events)))) > 1
