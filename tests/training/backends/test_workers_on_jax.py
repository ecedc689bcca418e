"""Tests runs of two processes on JAX, of two devices each: the weights of one process, a death, a signal, and what is refused."""

import contextlib
import importlib.util
import json
import re

import numpy as np
import pytest

from kfpn.training.backends.open_port import OpenPort
from tests.training import processes
from tests.training.backends.small_run import rows_of
from tests.training.distribution.test_workers import relative_difference
from tests.training.test_other_backends import QUICKLY_COMPILED

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
FLAGS = QUICKLY_COMPILED["XLA_FLAGS"] + " --xla_force_host_platform_device_count={}"


def start(folder, index=None, configs=None, module="standin_run", devices=2, **options):
    """Starts a worker, or with no index a process that trains alone."""
    told = {} if configs is None else {"TF_CONFIG": configs[index]}
    strategy = "mirrored" if configs is None else "multi_worker"
    env = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **QUICKLY_COMPILED, "XLA_FLAGS": FLAGS.format(devices)}
    return processes.start(f"backends.{module}", folder, json.dumps({"strategy": strategy, **options}), **env, **told)


def run_workers(folder, *extras, **options):
    """Runs two workers, with a dict of extra options each, and returns (exit code, stdout, stderr) of each."""
    configs = processes.tf_configs(2)
    return processes.finish(*[start(folder, i, configs, **options, **extra) for i, extra in enumerate(extras)])


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
