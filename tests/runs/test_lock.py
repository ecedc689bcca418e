import json
import os
import signal
import subprocess
import sys

import pytest

from kfpn.runs.lock import sole_training

HOLDER = """
import sys, time
from pathlib import Path
from kfpn.runs.lock import sole_training
with sole_training(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_training_is_refused_with_the_process_and_the_machine_of_the_first(tmp_path):
    message = rf"got .*{tmp_path.name}.*process {os.getpid()} on "
    with sole_training(tmp_path / ".lock"), pytest.raises(ValueError, match=message), sole_training(tmp_path / ".lock"):
        raise AssertionError
    with sole_training(tmp_path / ".lock"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_killed_process_leaves_no_lock(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"process {holder.pid} on"), sole_training(tmp_path / ".lock"):
        raise AssertionError
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with sole_training(tmp_path / ".lock"):
        pass


def test_a_file_system_without_locks_causes_a_warning(tmp_path, monkeypatch):
    def refused(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.warns(UserWarning, match="can't be locked"), sole_training(tmp_path / ".lock"):
        pass
