"""Tests runs of two processes on JAX, of two devices each: the weights of one process, a death, a signal, and what is refused."""

import contextlib
import importlib.util
import json
import os
import re
import shutil

import numpy as np
import pytest

from kfpn.training.backends.open_port import OpenPort
from tests.training import processes
from tests.training.backends.small_run import rows_of
from tests.training.distribution.test_workers import relative_difference
from tests.training.test_other_backends import KEPT_PROGRAMS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
FLAGS = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count={}"


def start(folder, told=None, module="standin_run", devices=2, **options):
    """Starts a process, which trains alone where no variables of the environment tell it of others."""
    strategy = "multi_worker" if told else "mirrored"
    env = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **KEPT_PROGRAMS, "XLA_FLAGS": FLAGS.format(devices)}
    words = folder, json.dumps({"strategy": strategy, **options})
    return processes.start(f"backends.{module}", *words, **env, **(told or {}))


def run_workers(folder, *extras, **options):
    """Runs two workers, with a dict of extra options each, and returns (exit code, stdout, stderr) of each."""
    pairs = zip(processes.tf_configs(len(extras)), extras, strict=True)
    return processes.finish(*[start(folder, {"TF_CONFIG": told}, **options, **extra) for told, extra in pairs])


def require_exit(*results, code=0):
    for got, output, errors in results:
        assert got == code, (output[-1000:], errors[-3000:])


def error_of(result):
    """Returns the error of a worker, the only line of its kind."""
    (line,) = [line for line in result[2].splitlines() if line.startswith("kfpn: error: ")]
    return line.removeprefix("kfpn: error: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the folder of a run of one process on four devices."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    require_exit(*processes.finish(start(folder, devices=4)))
    return folder


def require_same_run(folder, whole):
    """Checks weights, optimizer, rows of metrics and files of two runs of the stand-in."""
    assert relative_difference(whole, folder) < 1e-5
    names = ("loss", "rpn_class", "roi_box", "grad_norm", "lr", "step")
    rows = rows_of(folder, *names)
    np.testing.assert_allclose(rows, rows_of(whole, *names), rtol=1e-5)
    assert [row[-1] for row in rows] == [2, 4, 6]
    files = [
        {path.relative_to(run).as_posix() for path in run.rglob("*") if path.parent.name != "tensorboard"}
        for run in (whole, folder)
    ]
    assert files[0] == files[1]


def test_two_workers_that_one_of_them_stops_and_that_go_on_train_as_one_process_does(whole, tmp_path):
    stopped = run_workers(tmp_path / "run", {}, {"stop_at": 2})
    require_exit(*stopped)
    for _, output, _ in stopped:
        assert output.splitlines()[-1] == "saved at step 3 of 6; run the same command to go on"
    chief, other = run_workers(tmp_path / "run", {}, {})
    require_exit(chief, other)
    require_same_run(tmp_path / "run", whole)
    line = "strategy multi_worker: 4 replica(s) of JAX in 2 worker(s); this is worker 1 (localhost:"
    assert line in other[1]
    assert "with CPU:0, CPU:1; global batch 4, 1 a replica" in other[1]
    assert "step 6/6" in chief[1]
    assert "step 6/6" not in other[1]


def test_a_killed_worker_ends_the_chief_which_names_it_and_one_process_goes_on(whole, tmp_path):
    chief, dead = run_workers(tmp_path / "run", {}, {"die_at": 4})
    assert dead[0] == -9
    assert chief[0] == 3, chief[2][-3000:]
    assert error_of(chief).startswith("worker 1 (localhost:")
    assert "is gone: Connection refused; start all workers again" in error_of(chief)
    require_exit(*processes.finish(start(tmp_path / "run", devices=4)))
    require_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("extras", "line"),
    [
        (
            ({}, {"seed": 3}),
            "options and data must be the chief's on every worker, got another on worker 1 (localhost:",
        ),
        pytest.param(
            ({"batch_size": 6},) * 2,
            "batch_size must be a multiple of the number of replicas (4), got 6: all of them take part",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ({}, {"devices": 1}),
            "devices must be as many on every worker, got 2 on worker 0 and 1 on worker 1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_options_that_differ_or_a_batch_that_does_not_divide_end_both_workers_in_one_line(tmp_path, extras, line):
    results = run_workers(tmp_path / "run", *extras)
    require_exit(*results, code=2)
    for result in results:
        assert error_of(result).startswith(line)
    assert not (tmp_path / "run").exists()


def test_a_worker_that_does_not_come_is_named_and_so_is_a_port_that_is_taken(monkeypatch):
    from kfpn.training.backends import jax_workers

    told = json.loads(processes.tf_configs(2)[0])
    workers = told["cluster"]["worker"]
    monkeypatch.setattr(jax_workers, "WAIT_SECONDS", 0.0)
    monkeypatch.setenv("TF_CONFIG", json.dumps(told))
    monkeypatch.setattr(jax_workers, "_initialize", lambda **_: pytest.fail("JAX was started"))
    said = (
        f"worker 1 ({workers[1]}) must come within 0 seconds, got: Connection refused; start the same command on every"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        jax_workers.join_workers()
    port = int(workers[0].rpartition(":")[2])
    with (
        contextlib.closing(OpenPort(port)),
        pytest.raises(ValueError, match=f"^worker 0 must listen on {workers[0]}, got: "),
    ):
        jax_workers.join_workers()
    OpenPort(port).close()  # It is free again.


def test_errors_of_jax_about_other_workers_are_told_from_those_of_kfpn():
    from kfpn.training.backends.jax_cluster import JaxCluster

    gloo = ValueError("UNKNOWN: Gloo all-reduce failed: Timed out waiting 15000ms for recv operation to complete")
    pair, alone = JaxCluster(0, ["a:1", "b:1"]), JaxCluster(0, ["a:1"])
    assert pair.blames_worker(gloo)
    assert not pair.blames_worker(ValueError("picture 3 must be readable, got UNKNOWN: nothing"))
    assert not alone.blames_worker(gloo)


@pytest.mark.slow
def test_an_error_of_the_chief_alone_ends_the_other_worker_too(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    chief, other = run_workers(tmp_path / "run", {}, {}, seed=3)
    require_exit(chief, code=2)
    require_exit(other, code=3)
    assert "seed" in error_of(chief)
    assert error_of(other).startswith("worker 0 (localhost:")
    assert "has ended: its own lines say why" in error_of(other)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_both_workers(tmp_path):
    hot = {"optimizer": {"learning_rate": 1e30, "warmup_steps": 0, "clip_norm": None}}
    chief, other = run_workers(tmp_path / "run", {}, {}, **hot)
    require_exit(chief, other, code=2)
    report = json.loads((tmp_path / "run/nan/report.json").read_text())
    for result in (chief, other):
        assert "must be finite, got" in error_of(result)
        assert f"at step {report['step']}" in error_of(result)


@pytest.mark.slow
def test_a_worker_waits_for_a_chief_that_evaluates_for_minutes(tmp_path):
    require_exit(*run_workers(tmp_path / "run", {}, {}, slow_evaluation=150, eval_every=6))
    assert (tmp_path / "run/final.json").exists()


@pytest.mark.slow
def test_the_tasks_of_slurm_train_as_one_process_does(whole, tmp_path):
    same = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    tasks = [same | {"SLURM_PROCID": str(index), "SLURM_LOCALID": "0"} for index in range(2)]
    chief, other = processes.finish(*[start(tmp_path / "run", told=task) for task in tasks])
    require_exit(chief, other)
    require_same_run(tmp_path / "run", whole)
    assert "this is worker 1 (process 1 of JAX) with CPU:0, CPU:1" in other[1]


@pytest.mark.slow
def test_a_detector_of_two_workers_has_the_losses_weights_and_figures_of_one_process(tmp_path):
    same = {"steps": 4, "eval_every": 2, "accumulate": 2, "batch_size": 8, "module": "small_run"}
    require_exit(*processes.finish(start(tmp_path / "one", devices=4, **same)))
    require_exit(*run_workers(tmp_path / "two", {}, {}, **same))
    one, two = (tmp_path / name / "0" for name in ("one", "two"))
    assert relative_difference(one, two, 4) < 1e-5
    names = ("rpn_class", "rpn_box", "roi_class", "roi_box", "loss")
    np.testing.assert_allclose(rows_of(two, *names), rows_of(one, *names), rtol=1e-5)
    finals = [json.loads((run / "final.json").read_text()) for run in (one, two)]
    assert finals[0]["AP"] == pytest.approx(finals[1]["AP"], abs=1e-6)
