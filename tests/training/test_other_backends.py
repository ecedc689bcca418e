"""Tests `fit`, the callbacks and evaluation on each backend: with the same losses, and without TensorFlow where it is not the backend."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.training import fitting, small_detector

KEPT_PROGRAMS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""Settings of JAX with which a process keeps all that it compiled, for others."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def batch_file(tmp_path_factory):
    """Returns a file with a batch and the weights of a detector, and what TensorFlow makes of them."""
    batch = small_detector.batch(mask=True) | small_detector.weights_of(
        small_detector.detector(mask=True, cascade=True)
    )
    path = tmp_path_factory.mktemp("batch") / "batch.npz"
    np.savez(path, **batch)
    return path, fitting.losses_of(batch, run_eagerly=True)


def require_same_losses(got, expected):
    """Checks the losses of a batch, the norm of their gradients and the losses of two steps."""
    for name, value in expected["before"].items():
        assert got["before"][name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    assert got["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-2)
    assert len(got["steps"]) == 2
    for own, other in zip(expected["steps"], got["steps"], strict=True):
        for name, value in own.items():
            assert other[name] == pytest.approx(value, rel=1e-3), name


def require_fitted(got, folder):
    """Checks what `fitting.fitted` returned, and the files that it wrote."""
    assert len(got["history"]["val_AP"]) == len(got["history"]["val_loss"]) == 2
    # The work directory has the weights of the better epoch.
    assert got["AP"] == pytest.approx(max(got["history"]["val_AP"]), abs=1e-6)
    assert 0.0 <= got["flipped"] <= 1.0
    assert 0.0 <= got["recall"] <= 1.0
    assert got["moved"] < 1e-3  # Of equal figures the later weights are kept: those that the detector has.
    assert got["seen"] > 0
    assert got["after"][0] == pytest.approx(got["after"][1], rel=1e-5)
    assert got["steps"] == 4
    assert (folder / "pictures" / "000.png").stat().st_size > 1000
    assert len((folder / "run" / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_detector_trains_and_is_evaluated_without_tensorflow_with_the_same_losses(backend, batch_file, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    path, expected = batch_file
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    if backend == "jax":
        env |= {**KEPT_PROGRAMS, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    command = [sys.executable, "-m", "tests.training.other_backend", str(path), str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["backend"] == backend
    assert got["tensorflow"] == []
    require_same_losses(got, expected)
    require_fitted(got["fitted"], tmp_path)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_tensorflow_reads_data_for_another_backend_too(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.training.tensorflow_data", str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["backend"] == backend
    assert got["same"] == dict.fromkeys(got["names"], True)
    assert got["boxes"] == 2


def test_a_detector_trains_and_is_evaluated_on_tensorflow(tmp_path):
    tf.config.run_functions_eagerly(True)  # To build the graphs takes far longer than to run them.
    try:
        require_fitted(fitting.fitted(tmp_path), tmp_path)
    finally:
        tf.config.run_functions_eagerly(False)
