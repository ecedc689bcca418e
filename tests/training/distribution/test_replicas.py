"""Two replicas, logical CPUs of one process of their own: a strategy can't be had twice in one process everywhere."""

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
def test_two_replicas_end_where_one_does(replicas, case):
    apart = replicas[0][case]
    assert apart["finite"]
    assert apart["state"] < 1e-6
    assert apart["rows"] < 1e-5


def test_a_loss_that_is_not_finite_on_one_replica_is_refused_by_both(replicas):
    assert replicas[0]["nan"]["skipped"] == [0, 1, 0]


def test_sync_bn_on_replicas_goes_without_jit_and_says_so(replicas):
    assert "jit_compile is off" in replicas[1]


def test_an_overflow_on_one_replica_skips_the_step_on_both(replicas):
    apart = replicas[0]["overflow"]
    assert apart["finite"]
    assert apart["scale"] == 2.0**14
    assert apart["state"] < 1e-6
