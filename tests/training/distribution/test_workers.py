"""Tests whole runs in several processes: one is killed, one is told to stop, or a restart has more or fewer of them."""

import json

import numpy as np
import pytest

from tests.training import processes, standin, test_loop

SAVED = "saved at step {} of 6; run the same command to go on"


def run(network, folder, *extras, **options):
    """Runs one process for each dictionary of extra options, and returns (exit code, stdout, stderr) of each."""
    kind = {"strategy": "multi_worker" if len(extras) > 1 else "one_device", **options}
    words = [[network, folder, *(f"{k}={v}" for k, v in {**kind, **extra}.items())] for extra in extras]
    begun = processes.start_workers(*words) if len(words) > 1 else [processes.start("distribution.worker", *words[0])]
    return processes.finish(*begun)


def require_exit(*results, code=0):
    for got, _, errors in results:
        assert got == code, errors[-3000:]


def relative_difference(one, two, step=6):
    """Returns the largest difference of two runs' checkpoints, relative to the largest value of each array."""
    name = f"checkpoints/step_{step:08d}.npz"
    with np.load(one / name) as a, np.load(two / name) as b:
        keys = [key for key in a.files if key != "progress"]
        assert a.files == b.files
        return max(float(np.abs(a[key] - b[key]).max() / max(np.abs(a[key]).max(), 1e-3)) for key in keys)


def steps_logged(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if "loss" in row]


def run_until_worker_1_is_killed(network, folder):
    chief, dead = run(network, folder, {}, {"die_at": 3})
    assert dead[0] == -9
    assert chief[0] == 3, chief[2][-3000:]
    assert "kfpn: error: worker 1 (localhost:" in chief[2]
    assert "is gone" in chief[2]
    assert "start all workers again" in chief[2]


def test_a_killed_worker_ends_the_other_one_which_names_it_and_a_restart_goes_on(tmp_path):
    run_until_worker_1_is_killed("standin", tmp_path / "parts")
    assert not (tmp_path / "parts/checkpoints/step_00000006.npz").exists()
    require_exit(*run("standin", tmp_path / "parts", {}, {}))
    test_loop.start(tmp_path / "whole", standin.config())
    assert relative_difference(tmp_path / "whole", tmp_path / "parts") < 1e-5
    assert steps_logged(tmp_path / "parts") == [2, 4, 6]


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_and_ends_all_workers_and_a_restart_goes_on(tmp_path):
    stopped = run("standin", tmp_path / "parts", {}, {"stop_at": 2})
    require_exit(*stopped)
    for _, output, _ in stopped:
        assert output.splitlines()[-1] == SAVED.format(3)
    require_exit(*run("standin", tmp_path / "parts", {}, {}))
    test_loop.start(tmp_path / "whole", standin.config())
    assert relative_difference(tmp_path / "whole", tmp_path / "parts") < 1e-5


ONE, MIRRORED, WORKERS = ({"strategy": name} for name in ("one_device", "mirrored", "multi_worker"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [((MIRRORED,), (ONE,)), ((ONE,), (MIRRORED,)), ((WORKERS,) * 2, (ONE,)), ((ONE,), (WORKERS,) * 2)]
)  # fmt: skip
def test_a_run_goes_on_with_more_or_fewer_replicas(tmp_path, before, after):
    first = [{**extra, "stop_at": 2} for extra in before]
    stopped = run("standin", tmp_path / "parts", *first)
    require_exit(*stopped)
    assert SAVED.format(3) in stopped[0][1]
    require_exit(*run("standin", tmp_path / "parts", *after))
    test_loop.start(tmp_path / "whole", standin.config())
    assert relative_difference(tmp_path / "whole", tmp_path / "parts") < 1e-5
    assert steps_logged(tmp_path / "parts") == [2, 4, 6]


@pytest.mark.slow
def test_workers_wait_for_a_chief_that_evaluates_for_minutes(tmp_path):
    require_exit(*run("standin", tmp_path / "run", {}, {}, slow_evaluation=75))
    assert (tmp_path / "run/checkpoints/step_00000006.npz").exists()


@pytest.mark.slow
def test_a_real_detector_goes_on_with_the_same_bits_after_a_worker_was_killed_and_nearly_so_with_one_process(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    require_exit(*run("detector", whole, {}, {}))
    run_until_worker_1_is_killed("detector", parts)
    require_exit(*run("detector", parts, {}, {}))
    assert relative_difference(whole, parts) == 0
    elastic = tmp_path / "elastic"
    require_exit(*run("detector", elastic, {"stop_at": 2}, {}))
    require_exit(*run("detector", elastic, {}))
    assert relative_difference(whole, elastic) < 1e-5


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_workers_and_they_can_go_on_by_skipping_it(tmp_path):
    chief, other = run("detector", tmp_path, {}, {}, learning_rate=1e9)
    require_exit(chief, other, code=2)
    report = json.loads((tmp_path / "nan/report.json").read_text())
    for _, _, errors in (chief, other):
        assert f"at step {report['step']}" in next(
            line for line in errors.splitlines() if line.startswith("kfpn: error: ")
        )
    assert f"first to go was {report['first']}" in chief[2]
    require_exit(*run("detector", tmp_path, {}, {}, learning_rate=1e9, on_nan="skip"))
    assert (tmp_path / "final.json").exists()
