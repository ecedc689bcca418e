"""Runs the real command for some minutes, and again from an older checkpoint."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.training.kills import OPTIONS, ROOT, finish, newest, same_state, write_data


def command(workdir, data, *more):
    # The last `--eval-every` and `--checkpoint-every` are those of the run: these are few steps, so that old checkpoints are there.
    options = [*OPTIONS, *data, "--workdir", str(workdir), "--minutes", "0.7", "--keep-checkpoints", "1000", *more]
    return subprocess.Popen(
        [sys.executable, "train.py", *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_run_of_minutes_ends_the_same_again_from_an_older_checkpoint(tmp_path):
    data = write_data(tmp_path / "data")
    more = ("--checkpoint-every", "20", "--eval-every", "1000")
    output = finish(command(tmp_path / "whole", data, *more))
    final = json.loads((tmp_path / "whole" / "final.json").read_text())
    steps = newest(tmp_path / "whole")
    assert f"{final['minutes_used']:.2f} of 0.7 minutes used" in output
    assert final["steps"] == json.loads((tmp_path / "whole" / "config.json").read_text())["steps"] == steps
    assert {"AP", "loss"} <= final.keys()

    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    saved = sorted((tmp_path / "again" / "checkpoints").glob("step_*.npz"))
    for path in saved[max(1, len(saved) // 3) :]:
        path.unlink()
    output = finish(command(tmp_path / "again", data, *more))
    assert f"goes on from step {newest_of(saved)} of" in output
    same_state(tmp_path / "whole", tmp_path / "again", steps)
    assert "has finished its" in finish(command(tmp_path / "again", data, *more))


def newest_of(saved):
    return int(saved[max(1, len(saved) // 3) - 1].stem[5:])
