"""Tests a run of segments on JAX, on two devices."""

import numpy as np
import pytest

from kfpn.inference.evaluate_segments import measure_segments, open_segment_pass
from kfpn.modeling.networks import build_network
from kfpn.runs.workdir import Workdir
from kfpn.training.validation_loss import ValidationLoss
from tests.eager import eagerly
from tests.training import made_up
from tests.training.backends.small_run import rows_of


def test_segments_are_learnt_on_two_devices_and_tensorflow_measures_the_same(run_on_jax, tmp_path):
    options = {
        "model": {"task": "segments", "segment_width": 16, "max_segments": 40}, "sampling": {"segment_batch": 32},
        "optimizer": {"learning_rate": 0.02, "warmup_steps": 0}, "steps": 8, "eval_every": 8, "val_loss": True,
        "strategy": "mirrored", "cpu_devices": 2,
    }  # fmt: skip
    (final,) = run_on_jax(tmp_path, options)
    masks = rows_of(tmp_path / "0", "segment_mask")[:, 0]
    assert masks[0] == pytest.approx(10 * np.log(2), abs=0.1)
    assert masks[-1] < masks[0]
    run, validation = Workdir(tmp_path / "0"), made_up.source(100, 3, name="validation", kind=made_up.with_masks)
    config = run.read_config()
    submodels = build_network(config)
    submodels.weights_model.load_weights(run.weights)
    with eagerly():
        losses = ValidationLoss(submodels, config, validation).measure()
        recall = measure_segments(run.path, open_segment_pass(run.path, validation))
    assert losses == pytest.approx({name: final[name] for name in losses}, rel=1e-3)
    assert recall["AR@100"] == pytest.approx(final["AR@100"], abs=0.05)
