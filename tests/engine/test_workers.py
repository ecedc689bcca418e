"""Whole runs in several processes: one dies, one is told to stop, or there are more or fewer of them after a restart."""

import json

import numpy as np
import processes
import pytest
import standin
import test_loop

SAVED = "saved at step {} of 6; run the same command to go on"


def run(network, folder, *extras, **options):
    """Runs one process for each dictionary of extras; returns (exit code, stdout, stderr) of each."""
    kind = {"strategy": "multi_worker" if len(extras) > 1 else "one_device", **options}
    words = [[network, folder, *(f"{k}={v}" for k, v in {**kind, **extra}.items())] for extra in extras]
    begun = processes.start_workers(*words) if len(words) > 1 else [processes.start("worker.py", *words[0])]
    return processes.finish(*begun)


def all_end(*results, code=0):
    for got, _, errors in results:
        assert got == code, errors[-3000:]


def apart(one, two, step=6):
    """Returns how far two runs' last checkpoints lie apart, relative to the largest value of each array."""
    name = f"checkpoints/step_{step:08d}.npz"
    with np.load(one / name) as a, np.load(two / name) as b:
        keys = [key for key in a.files if key != "progress"]
        assert a.files == b.files
        return max(float(np.abs(a[key] - b[key]).max() / max(np.abs(a[key]).max(), 1e-3)) for key in keys)


def steps_logged(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "loss" in row]


def loses_worker_1(network, folder):
    chief, dead = run(network, folder, {}, {"die_at": 3})
    assert dead[0] == -9
    assert chief[0] == 3, chief[2][-3000:]
    assert "kfpn: error: worker 1 (localhost:" in chief[2]
    assert "is gone" in chief[2]
    assert "start all workers again" in chief[2]


def test_a_killed_worker_ends_the_other_with_its_name_and_both_go_on(tmp_path):
    loses_worker_1("standin", tmp_path / "parts")
    assert not (tmp_path / "parts/checkpoints/step_00000006.npz").exists()
    all_end(*run("standin", tmp_path / "parts", {}, {}))
    test_loop.start(tmp_path / "whole", standin.config())
    assert apart(tmp_path / "whole", tmp_path / "parts") < 1e-5
    assert steps_logged(tmp_path / "parts") == [2, 4, 6]
