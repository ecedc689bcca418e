"""Tests what a run on JAX does where a loss is not finite."""

import json

import numpy as np


def test_a_run_that_diverges_stops_before_the_step_and_names_what_was_first_not_finite(run_on_jax, tmp_path):
    options = {"optimizer": {"learning_rate": 1e9, "warmup_steps": 0, "clip_norm": None}}
    got, replayed = run_on_jax(tmp_path, options, {"command": ["replay-nan", "--workdir", str(tmp_path / "0")]})
    assert "must be finite, got" in got["error"]
    assert "first to go was the output of layer" in got["error"]
    report = json.loads((tmp_path / "0/nan/report.json").read_text())
    with np.load(tmp_path / f"0/checkpoints/step_{report['step'] - 1:08d}.npz") as kept:
        assert all(np.isfinite(kept[name]).all() for name in kept.files if name != "progress")
    assert replayed == {"code": 0}
