"""Trains on JAX, where TensorFlow can't be imported."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_other_backends import KEPT_PROGRAMS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def run_on_jax(tmp_path_factory):
    """Returns a function that trains on JAX in another process, where TensorFlow can't be imported; all share what was compiled."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs jax")
    compiled = tmp_path_factory.mktemp("compiled")

    def run(folder, *changes, exit_code=0):
        env = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT), **KEPT_PROGRAMS}
        env |= {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "tests.training.backends.small_run", str(folder), *map(json.dumps, changes)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)
        assert done.returncode == exit_code, done.stderr[-3000:]
        if exit_code:
            return []
        got = json.loads(done.stdout.splitlines()[-1])
        assert got["tensorflow"] == []
        return got["runs"]

    return run
