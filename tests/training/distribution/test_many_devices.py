"""Trains by the command on a CPU that is split into devices: they stand for GPUs. Each run is a process of its own."""

import json

import numpy as np
import pytest

from tests.training import processes


def run(folder, devices, *options):
    """Returns (stdout, stderr) of a run of two steps and an evaluation."""
    (result,) = processes.finish(
        processes.start("distribution.many_devices", folder, devices, *options, "--model.pyramid", "c5"), timeout=1500
    )
    code, output, errors = result
    assert code == 0, errors[-3000:]
    assert "rows as before" in output
    final = json.loads((folder / "run/final.json").read_text())
    assert final["best_step"] == 2
    return output, errors


def test_three_devices_train_and_evaluate_and_say_what_they_do(tmp_path):
    # With all stages frozen no norm sums over replicas, which takes long to trace; the slow tests have some that do.
    output, errors = run(tmp_path, 3, "--model.freeze-stages", 5)
    assert "strategy mirrored: 2 replica(s) on CPU:0, CPU:1; global batch 4, 2 a replica" in output
    assert "2 of 3 devices train (CPU:0, CPU:1)" in errors
    assert "--batch-size 6 would use all 3" in errors
    assert errors.count("model.norm bn is computed as sync_bn on 2 replicas") == 1
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["model"]["norm"], config["cpu_devices"]) == ("bn", 3)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "batch_size", "replicas"), [
    (2, 4, 2), (4, 4, 4), (6, 4, 4), (8, 4, 4), (3, 6, 3), (6, 6, 6), (8, 8, 8),
])  # fmt: skip
def test_any_number_of_devices_trains_and_evaluates(tmp_path, devices, batch_size, replicas):
    output, errors = run(tmp_path, devices, "--batch-size", batch_size)
    assert f"strategy mirrored: {replicas} replica(s) on CPU:0" in output
    assert (f"{replicas} of {devices} devices train" in errors) == (replicas < devices)


@pytest.mark.slow
def test_a_run_with_bn_takes_the_same_step_on_another_number_of_devices(tmp_path):
    run(tmp_path, 3)
    last = tmp_path / "run/checkpoints/step_00000002.npz"
    with np.load(last) as file:
        whole = {name: file[name] for name in file.files if name != "progress"}
    for devices in (1, 4):
        last.unlink()
        output, errors = run(tmp_path, devices)
        assert "goes on from step 1 of 2" in output
        assert ("is computed as sync_bn" in errors) == (devices > 1)
        with np.load(last) as file:
            for name, value in whole.items():
                np.testing.assert_allclose(file[name], value, rtol=1e-3, atol=1e-4 * np.abs(value).max(), err_msg=name)
