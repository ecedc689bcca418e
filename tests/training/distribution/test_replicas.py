"""Compares two replicas with one. They run in a process of their own, because not every TensorFlow makes a strategy twice in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def replicas():
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.standin", "jit", "sync_bn", "nan", "overflow"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("case", ["jit", "sync_bn", "nan"])
def test_two_replicas_end_with_the_weights_of_one(replicas, case):
    difference = replicas[0][case]
    assert difference["finite"]
    assert difference["state"] < 1e-6
    assert difference["rows"] < 1e-5


def test_a_step_whose_loss_is_not_finite_on_one_replica_is_skipped_by_both(replicas):
    assert replicas[0]["nan"]["skipped"] == [0, 1, 0]


def test_of_steps_with_sync_bn_on_several_replicas_the_islands_are_compiled_and_a_line_says_so(replicas):
    assert "compile is islands: sync_bn" in replicas[1]


def test_an_overflow_on_one_replica_skips_the_step_on_both(replicas):
    difference = replicas[0]["overflow"]
    assert difference["finite"]
    assert difference["scale"] == 2.0**14
    assert difference["state"] < 1e-6
