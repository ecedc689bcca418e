import os
import signal
import subprocess
import sys

import pytest

from tests.training import standin
from tests.training.kills import (
    ROOT,
    begin,
    compare,
    finish,
    kill_at,
    newest,
    random_kills,
    same_rows,
    same_state,
    write_data,
)
from tests.training.test_loop import start

STEPS = 16


@pytest.mark.slow
def test_a_run_killed_five_times_at_random_ends_with_the_same_bits(tmp_path):
    data = write_data(tmp_path / "data")
    finish(begin(tmp_path / "whole", data, STEPS))
    kills = 0
    for step, writing, delay in random_kills(5, STEPS):
        kills += kill_at(begin(tmp_path / "parts", data, STEPS), tmp_path / "parts", step, writing, delay)
        print(f"killed after step {step}{', writing' if writing else ''}: newest kept {newest(tmp_path / 'parts')}")
    assert kills == 5
    assert f"of {STEPS}" in finish(begin(tmp_path / "parts", data, STEPS))
    compare(tmp_path / "whole", tmp_path / "parts", STEPS)


STANDIN = """
import os, signal, sys
from pathlib import Path
from tests.training.test_loop import start
from tests.training import standin
folder, at, half = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "half"
replace = os.replace

def killed_before_the_rename(aside, path):
    if half and Path(path).name == f"step_{at:08d}.npz":
        os.truncate(aside, os.path.getsize(aside) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(aside, path)

os.replace = killed_before_the_rename
start(folder, standin.config(), interfere=lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == at and not half else None)
"""


def run_standin(folder, at, how):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", STANDIN, str(folder), str(at), how], env=environment).returncode


def test_a_kill_between_steps_and_a_kill_while_a_checkpoint_is_written_change_no_bit(tmp_path):
    start(tmp_path / "whole", standin.config())
    assert run_standin(tmp_path / "parts", 2, "step") == -signal.SIGKILL
    assert run_standin(tmp_path / "parts", 5, "half") == -signal.SIGKILL
    assert (tmp_path / "parts" / "checkpoints" / "step_00000005.tmp").exists()
    assert newest(tmp_path / "parts") == 4
    start(tmp_path / "parts", standin.config())
    same_state(tmp_path / "whole", tmp_path / "parts", 6)
    same_rows(tmp_path / "whole", tmp_path / "parts")
