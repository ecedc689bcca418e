import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.runs.workdir import Workdir
from kfpn.training.progress import warn_on_write_error
from kfpn.training.train import train
from tests.training import standin
from tests.training.test_loop import rows, start

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch):
    """Returns the function (*steps) that makes saving the checkpoints of these steps fail."""
    savez = np.savez

    def fill(*steps):
        def failing(file, **arrays):
            file.write(b"half a checkpoint")
            if json.loads(str(arrays["progress"]))["step"] in steps:
                raise FULL
            file.seek(0)
            savez(file, **arrays)

        monkeypatch.setattr("kfpn.runs.checkpoint.np.savez", failing)

    return fill


def test_a_run_goes_on_with_the_same_bits_after_a_checkpoint_met_a_full_disk(tmp_path, full_disk):
    whole, _ = start(tmp_path / "whole", standin.config())
    full_disk(2, 4)
    with pytest.warns(UserWarning, match=r"no checkpoint at step 2: .*No space left.* Kept are those of steps \[1\]"):
        parts, progress = start(tmp_path / "parts", standin.config())
    assert progress.step == 6
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    checkpoints = tmp_path / "parts" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == [f"step_0000000{step}.npz" for step in (3, 5, 6)]


def test_a_disk_that_is_still_full_at_the_end_is_an_error_and_the_run_can_go_on(tmp_path, full_disk, monkeypatch):
    with monkeypatch.context():
        full_disk(5, 6)
        with (
            pytest.warns(UserWarning, match="no checkpoint at step 6"),
            pytest.raises(ValueError, match=r"room for the checkpoint of step 6, .*same command to go on from step 4"),
        ):
            start(tmp_path, standin.config())
    full_disk()
    assert start(tmp_path, standin.config())[1].step == 6


def test_a_signal_on_a_full_disk_does_not_say_that_all_is_saved(tmp_path, full_disk, capsys):
    full_disk(3)
    with pytest.warns(UserWarning, match="no checkpoint"), pytest.raises(ValueError, match="go on from step 2"):
        start(
            tmp_path,
            standin.config(),
            interfere=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 2 else None,
        )
    assert "saved at" not in capsys.readouterr().out


def test_if_there_is_no_room_for_an_evaluations_weights_it_is_lost_and_the_run_goes_on(tmp_path, monkeypatch):
    save = Workdir.save_weights
    calls = []

    def first_fails(workdir, model):
        calls.append(1)
        if len(calls) == 1:
            raise FULL
        save(workdir, model)

    monkeypatch.setattr(Workdir, "save_weights", first_fails)
    with pytest.warns(UserWarning, match="evaluation of step 3 is lost: .*No space left"):
        _, progress = start(tmp_path, standin.config(), lambda step: {"AP": 1.0 / step})
    assert (progress.best_step, progress.best) == (6, {"AP": 1 / 6})


def test_a_run_goes_on_if_there_is_no_room_for_rows_and_events(tmp_path, monkeypatch):
    def full(*_, **__):
        raise FULL

    def exhausted(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(Workdir, "append_metrics", full)
    monkeypatch.setattr(tf.summary, "scalar", exhausted)
    with pytest.warns(UserWarning, match="can.t be written") as caught:
        assert start(tmp_path, standin.config())[1].step == 6
    texts = " ".join(str(warning.message) for warning in caught)
    assert "metrics.jsonl can't be written" in texts
    assert "tensorboard can't be written" in texts


def test_an_error_that_is_no_failure_to_write_is_raised():
    with pytest.raises(ZeroDivisionError), warn_on_write_error("a picture"):
        raise ZeroDivisionError


LIMITED = """
import resource, signal, sys
from kfpn.runs.workdir import Workdir
import keras
from kfpn.runs.checkpoint import Checkpoints, Progress, named_variables
workdir = Workdir(sys.argv[1])
state = named_variables(model=[keras.Variable([0.0] * 30000, name="kernel")])
checkpoints = Checkpoints(workdir.checkpoints, state)
checkpoints.save(Progress(1))
workdir.append_metrics({"step": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
for write in (lambda: checkpoints.save(Progress(2)), lambda: workdir.append_metrics({"step": 2, "loss": "x" * 99})):
    try:
        write()
        print("written")
    except OSError as error:
        print("refused")
workdir.append_metrics({"step": 3})
print(checkpoints.restore().step)
"""


def test_if_the_kernel_refuses_to_write_only_whole_files_and_rows_are_left(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split() == ["refused", "refused", "1"], done.stderr[-2000:]
    assert [row["step"] for row in rows(tmp_path)] == [1, 3]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001.npz"]


def test_rows_hold_the_same_means_after_a_restart_between_two_rows(tmp_path):
    config = replace(standin.config(), log_every=3, eval_every=100)

    def die(step):
        if step == 4:
            raise MemoryError

    start(tmp_path / "whole", config)
    with pytest.raises(MemoryError):
        start(tmp_path / "parts", config, interfere=die)
    start(tmp_path / "parts", config)
    times = {"seconds", "images_per_second"}
    whole, parts = (
        [{key: row[key] for key in row.keys() - times} for row in rows(tmp_path / run)] for run in ("whole", "parts")
    )
    assert whole == parts


def test_no_time_is_negative_if_the_clock_jumps(tmp_path, monkeypatch):
    jumps = iter([4e9, 0.0, 9e9, -5.0] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    began = time.monotonic()
    _, progress = start(tmp_path, standin.config())
    assert 0.0 < progress.seconds < time.monotonic() - began
    assert all(0.0 <= row["seconds"] <= progress.seconds for row in rows(tmp_path))


def test_a_folder_that_cannot_be_written_is_refused_for_root_too(tmp_path, monkeypatch):
    def refused(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("kfpn.runs.workdir.tempfile.TemporaryFile", refused)
    with pytest.raises(ValueError, match=r"workdir must be a folder that can be written, .*Read-only file system"):
        Workdir(tmp_path).check_writable()


def test_a_folder_with_the_config_of_another_program_is_refused_and_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    text = r"^workdir must be a folder without files of others, got .*config\.json: unknown option 'model_type'.*: name another folder$"
    with pytest.raises(ValueError, match=text):
        train(replace(preset("shapes"), workdir=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
