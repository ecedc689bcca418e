"""Whole runs in several processes: one dies, one is told to stop, or there are more or fewer of them after a restart."""

import json

import numpy as np
import pytest

from tests.training import processes, standin, test_loop

SAVED = "saved at step {} of 6; run the same command to go on"


def run(network, folder, *extras, **options):
    """Runs one process for each dictionary of extras; returns (exit code, stdout, stderr) of each."""
    kind = {"strategy": "multi_worker" if len(extras) > 1 else "one_device", **options}
    words = [[network, folder, *(f"{k}={v}" for k, v in {**kind, **extra}.items())] for extra in extras]
    begun = processes.start_workers(*words) if len(words) > 1 else [processes.start("distribution.worker", *words[0])]
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


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_ends_all_and_they_go_on(tmp_path):
    stopped = run("standin", tmp_path / "parts", {}, {"stop_at": 2})
    all_end(*stopped)
    for _, said, _ in stopped:
        assert said.splitlines()[-1] == SAVED.format(3)
    all_end(*run("standin", tmp_path / "parts", {}, {}))
    test_loop.start(tmp_path / "whole", standin.config())
    assert apart(tmp_path / "whole", tmp_path / "parts") < 1e-5


ONE, MIRRORED, WORKERS = ({"strategy": name} for name in ("one_device", "mirrored", "multi_worker"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [((MIRRORED,), (ONE,)), ((ONE,), (MIRRORED,)), ((WORKERS,) * 2, (ONE,)), ((ONE,), (WORKERS,) * 2)]
)  # fmt: skip
def test_a_run_goes_on_with_more_or_fewer_replicas(tmp_path, before, after):
    first = [{**extra, "stop_at": 2} for extra in before]
    stopped = run("standin", tmp_path / "parts", *first)
    all_end(*stopped)
    assert SAVED.format(3) in stopped[0][1]
    all_end(*run("standin", tmp_path / "parts", *after))
    test_loop.start(tmp_path / "whole", standin.config())
    assert apart(tmp_path / "whole", tmp_path / "parts") < 1e-5
    assert steps_logged(tmp_path / "parts") == [2, 4, 6]


@pytest.mark.slow
def test_a_chief_that_evaluates_for_minutes_ends_nobody(tmp_path):
    all_end(*run("standin", tmp_path / "run", {}, {}, slow_evaluation=75))
    assert (tmp_path / "run/checkpoints/step_00000006.npz").exists()


@pytest.mark.slow
def test_a_real_detector_goes_on_after_a_dead_worker_with_the_same_bits_and_then_with_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    all_end(*run("detector", whole, {}, {}))
    loses_worker_1("detector", parts)
    all_end(*run("detector", parts, {}, {}))
    assert apart(whole, parts) == 0
    elastic = tmp_path / "elastic"
    all_end(*run("detector", elastic, {"stop_at": 2}, {}))
    all_end(*run("detector", elastic, {}))
    assert apart(whole, elastic) < 1e-5


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_workers_alike_and_they_can_go_on_without_it(tmp_path):
    chief, other = run("detector", tmp_path, {}, {}, learning_rate=1e9)
    all_end(chief, other, code=2)
    report = json.loads((tmp_path / "nan/report.json").read_text())
    for _, _, errors in (chief, other):
        assert f"at step {report['step']}" in next(
            line for line in errors.splitlines() if line.startswith("kfpn: error: ")
        )
    assert f"first to go was {report['first']}" in chief[2]
    all_end(*run("detector", tmp_path, {}, {}, learning_rate=1e9, on_nan="skip"))
    assert (tmp_path / "final.json").exists()
