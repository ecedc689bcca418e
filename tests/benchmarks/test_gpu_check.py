"""Tests the questions to a GPU: what is shown of their answers, and that a question that fails leaves the others alone."""

import json
import subprocess
from types import SimpleNamespace

import gpu_check
import gpu_check_ops
import numpy as np
import pytest

from kfpn.ops.nms import suppress


def test_the_table_has_the_machine_and_each_row_with_how_to_read_it():
    answers = {
        "nms": [("rounds", 12, "", "fewer is better"), ("time", 1.23456, "ms", "low")],
        "one": [("a step", None, "", "FAILED")],
    }
    assert gpu_check.table([("TensorFlow", "2.21.0")], answers).splitlines() == [
        "TensorFlow: 2.21.0",
        "",
        "== nms",
        "rounds: 12",
        "    fewer is better",
        "time: 1.235 ms",
        "    low",
        "",
        "== one",
        "a step: -",
        "    FAILED",
    ]


@pytest.mark.parametrize(
    ("code", "out", "errors", "expected"),
    [
        (0, 'noise\ngpu_check rows: [["a", 1, "ms", "b"]]\n', "", [["a", 1, "ms", "b"]]),
        (1, "", "Traceback\nValueError: no\n", [["nms", None, "", "FAILED with code 1: ValueError: no"]]),
        (-9, "", "", [["nms", None, "", "FAILED with code -9: no message"]]),
    ],
)
def test_the_rows_of_a_question_are_read_from_its_process_or_say_how_it_failed(
    monkeypatch, code, out, errors, expected
):
    done = SimpleNamespace(returncode=code, stdout=out, stderr=errors)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert gpu_check.ask("nms", True, 5) == expected


def test_a_question_that_takes_too_long_is_said(monkeypatch):
    def late(*_, **__):
        raise subprocess.TimeoutExpired("python", 5)

    monkeypatch.setattr(subprocess, "run", late)
    assert gpu_check.ask("nms", True, 5) == [["nms", None, "", "FAILED: took more than 5 s"]]


def test_rounds_are_counted_until_nothing_changes():
    # Each box overlaps the next by more than .7, and the one after that by less. At first all are kept; one round leaves the
    # first alone, the second all but the next one, the third the first and the third, and the fourth changes nothing.
    boxes = np.array([[[0, 0, 100, 100], [0, 10, 100, 110], [0, 20, 100, 120], [0, 30, 100, 130]]], "float32")
    valid = np.ones((1, 4), bool)
    assert np.array(suppress(boxes, valid, 0.7))[0].tolist() == [True, False, True, False]
    assert gpu_check_ops.count_rounds(boxes, valid) == 4


def test_the_rows_of_sorts_can_be_written_as_json():
    rows = gpu_check_ops.sorts(quick=True)
    assert json.loads(json.dumps(rows)) == [list(row) for row in rows]
    assert all(number > 0 for _, number, _, _ in rows)
