import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kfpn
from tests.training import small_detector

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def batch_file(tmp_path_factory):
    """Returns a file with a batch and the weights of a detector, and what TensorFlow makes of them."""
    built, batch = small_detector.detector(), small_detector.batch()
    weights = small_detector.weights_of(built)
    path = tmp_path_factory.mktemp("batch") / "batch.npz"
    np.savez(path, **batch, **weights)
    model = kfpn.trainable(built, **small_detector.SAMPLING)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    before = model.test_on_batch(batch, return_dict=True)
    return path, before, [model.train_on_batch(batch, return_dict=True) for _ in range(2)]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_detector_trains_and_is_evaluated_without_tensorflow_with_the_same_losses(backend, batch_file, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    path, before, steps = batch_file
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.training.other_backend", str(path), str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["backend"] == backend
    assert got["tensorflow"] == []
    for name, value in before.items():
        assert got["before"][name] == pytest.approx(float(value), rel=1e-5), name
    for own, other in zip(steps, got["steps"], strict=True):
        for name, value in own.items():
            assert other[name] == pytest.approx(float(value), rel=1e-3), name
    assert len(got["history"]["val_AP"]) == len(got["history"]["val_loss"]) == got["epoch"] == 2
    # The work directory has the weights of the better epoch.
    assert got["AP"] == pytest.approx(max(got["history"]["val_AP"]), abs=1e-6)
    assert 0.0 <= got["flipped"] <= 1.0
    assert 0.0 <= got["recall"] <= 1.0
    assert got["moved"] < 1e-3  # Of equal figures the later weights are kept: those that the detector has.
    assert got["seen"] > 0
    assert got["after"][0] == pytest.approx(got["after"][1], rel=1e-5)
    assert (tmp_path / "pictures" / "000.png").stat().st_size > 1000
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4
