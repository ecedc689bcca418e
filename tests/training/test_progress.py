"""Tests the lines of progress that a run prints where there is no terminal."""

import time

from kfpn.runs.workdir import Workdir
from kfpn.training.progress import SECONDS_BETWEEN_LINES, ProgressReport


def test_the_time_that_is_left_is_reckoned_without_the_steps_of_the_first_row(tmp_path, capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    report = ProgressReport(Workdir(tmp_path), 0, 1000)
    for step, seconds in ((10, 600.0), (20, 2 * SECONDS_BETWEEN_LINES)):
        now[0] += seconds
        report.train_row({"step": step, "loss": 1.0, "images_per_second": 2.0})
    report.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "step 10/1000: loss 1.000, 2.0 images/s"
    assert second == "step 20/1000: loss 1.000, 2.0 images/s, 32:40 left"  # 98 times twenty seconds
