import subprocess
import sys
import time

import pytest

from kfpn.runs import command_start as module
from kfpn.runs.command_start import command_start, command_under_way


def test_without_a_command_it_begins_now():
    before = time.monotonic()
    assert before <= command_start() <= time.monotonic()


def test_a_command_called_from_python_begins_with_the_call():
    with command_under_way(is_process=False):
        begun = command_start()
        time.sleep(0.02)
        assert command_start() == begun


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell when a process was started")
def test_a_command_begins_with_its_process():
    words = (
        "import time; time.sleep(0.5); from kfpn.runs.command_start import *\n"
        "with command_under_way(is_process=True): print(time.monotonic() - command_start())"
    )
    before = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout)
    assert 0.45 <= age <= time.monotonic() - before + 0.05


def test_clocks_that_do_not_agree_are_not_believed(monkeypatch):
    monkeypatch.setattr(module.time, "clock_gettime", lambda _: 1e9)
    before = time.monotonic()
    with command_under_way(is_process=True):
        assert before <= command_start() <= time.monotonic()
