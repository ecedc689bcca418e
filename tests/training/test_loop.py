import itertools
import json
import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from kfpn.data.out_of_memory import OutOfMemoryError
from kfpn.runs.checkpoint import Checkpoints, named_variables
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.distribution.worker_stubs import ReadCheckpoints, ReadWorkdir
from kfpn.training.interrupt import Interruption
from kfpn.training.loop import Loop, Run
from kfpn.training.optimizer import Optimizer
from kfpn.training.step import build_train_step
from tests.training import standin


def start(path, config, evaluate=None, interfere=None, strategy=None, losses=None, recorder=None, keep_evaluation=None):
    """Trains as one more call of `train` does, from what the folder holds.

    `interfere(step)` is called before each step. `recorder(variables)` makes the recorder.
    """
    strategy = strategy or make_strategy("one_device")
    cluster = Cluster(strategy)
    workdir = (Workdir if cluster.is_chief else ReadWorkdir)(path)
    workdir.check_writable()
    cluster.watch()
    with strategy.scope():
        parts = standin.submodels(synchronized=True)
        optimizer = Optimizer(config, parts.weights_model.trainable_variables)
    variables = named_variables(model=parts.weights_model.variables, optimizer=optimizer.variables)
    checkpoints = (Checkpoints if cluster.is_chief else ReadCheckpoints)(workdir.checkpoints, variables)
    progress = checkpoints.restore()
    cluster.gather(0)
    workdir.drop_metrics_after(progress.step, progress.evaluated)
    step = build_train_step(parts, config, optimizer, strategy, losses or standin.losses, standin.noise_shapes)

    def watched(batch):
        if interfere:
            interfere(progress.step)
        return step(batch)

    run = Run(
        config=config,
        workdir=workdir,
        weights_model=parts.weights_model,
        optimizer=optimizer,
        step=watched,
        checkpoints=checkpoints,
        progress=progress,
        evaluate=evaluate,
        keep_evaluation=keep_evaluation,
        cluster=cluster,
        recorder=recorder and recorder(variables),
    )
    Loop(run).train(lambda step: iter(strategy.experimental_distribute_dataset(standin.batches(config, step))))
    cluster.leave()
    return {name: variable.numpy() for name, variable in variables.items()}, progress


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_three_steps_and_three_more_are_bit_identical_to_six(tmp_path):
    whole, _ = start(tmp_path / "whole", standin.config())

    def die(step):
        if step == 3:
            raise MemoryError

    with pytest.raises(MemoryError):
        start(tmp_path / "parts", standin.config(), interfere=die)
    parts, progress = start(tmp_path / "parts", standin.config())
    assert progress.step == 6
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    losses = [[(row["step"], row["loss"]) for row in rows(tmp_path / run)] for run in ("whole", "parts")]
    assert [step for step, _ in losses[0]] == [step for step, _ in losses[1]] == [2, 4, 6]
    assert losses[0][2] == losses[1][2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_after_a_signal_the_step_is_finished_and_saved_and_the_run_exits(tmp_path, capsys, number, code):
    config = replace(standin.config(), checkpoint_every=100, eval_every=100)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as exit_info:
        start(tmp_path, config, interfere=lambda step: os.kill(os.getpid(), number) if step == 3 else None)
    assert exit_info.value.code == code
    assert signal.getsignal(number) is before
    assert "saved at step 4 of 6; run the same command to go on" in capsys.readouterr().out
    saved = Workdir(tmp_path).weights.read_bytes()
    with pytest.raises(SystemExit):
        start(tmp_path, config, interfere=lambda step: os.kill(os.getpid(), number) if step == 4 else None)
    assert Workdir(tmp_path).weights.read_bytes() != saved
    _, progress = start(tmp_path, config)
    assert progress.step == 6


def test_a_signal_before_the_first_step_leaves_no_untrained_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(Interruption, "__enter__", lambda stop: setattr(stop, "signal", signal.SIGINT) or stop)
    with pytest.raises(SystemExit):
        start(tmp_path, standin.config())
    assert not Workdir(tmp_path).weights.exists()


def test_if_an_image_fails_no_finished_step_is_lost(tmp_path, monkeypatch):
    config = replace(standin.config(), checkpoint_every=100, eval_every=100)

    def failing(batches):
        yield from itertools.islice(batches, 4)
        raise ValueError("c.jpg: does not exist")

    train = Loop.train
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "train", lambda loop, open_at: train(loop, lambda step: failing(open_at(step))))
        with pytest.raises(ValueError, match=r"c\.jpg"):
            start(tmp_path, config)
    assert [path.name for path in Workdir(tmp_path).checkpoints.iterdir()] == ["step_00000004.npz"]


def test_a_signal_ends_an_evaluation_at_once_and_the_restart_evaluates_again(tmp_path):
    asked = []

    def evaluate(step):
        asked.append(step)
        if len(asked) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"AP": 0.5}

    with pytest.raises(SystemExit):
        start(tmp_path, standin.config(), evaluate)
    _, progress = start(tmp_path, standin.config(), evaluate)
    assert asked == [3, 3, 6]
    assert progress.step == 6


def test_the_best_evaluation_is_kept_with_its_weights(tmp_path):
    sizes, kept = {}, []

    def evaluate(step):
        sizes[step] = Workdir(tmp_path).weights.exists()
        return {"AP": {3: 0.5, 6: 0.25}[step]}

    def keep_evaluation():
        kept.append((max(sizes), Workdir(tmp_path).weights.exists()))

    _, progress = start(tmp_path, standin.config(), evaluate, keep_evaluation=keep_evaluation)
    assert kept == [(3, True)]
    assert (progress.best_step, progress.best, progress.last) == (3, {"AP": 0.5}, {"AP": 0.25})
    assert sizes == {3: False, 6: True}
    assert [(row["step"], row["AP"]) for row in rows(tmp_path) if "AP" in row] == [(3, 0.5), (6, 0.25)]
    saved = Workdir(tmp_path).weights.stat().st_mtime_ns
    _, again = start(tmp_path, standin.config(), evaluate)
    assert again == progress
    assert Workdir(tmp_path).weights.stat().st_mtime_ns == saved


@pytest.mark.parametrize("unmeasured", [None, 0.0])
def test_without_a_measure_the_last_weights_are_kept_after_a_restart_as_well(tmp_path, unmeasured):
    config = replace(standin.config(), eval_every=2)

    def die(step):
        if step == 4:
            raise KeyboardInterrupt

    def evaluate(step):
        return {"AP": unmeasured}

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, config, evaluate, interfere=die)
        assert Workdir(tmp_path).weights.exists()
        early = Workdir(tmp_path).weights.stat().st_mtime_ns
        state, progress = start(tmp_path, config, evaluate)
    assert progress.best_step == 6
    assert Workdir(tmp_path).weights.stat().st_mtime_ns > early
    parts = standin.submodels()
    parts.weights_model.load_weights(Workdir(tmp_path).weights)
    for variable, value in zip(parts.weights_model.trainable_variables, list(state.values())[-5:], strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    texts = [str(warning.message) for warning in said if "AP can't be measured" in str(warning.message)]
    assert len(texts) == (0 if unmeasured == 0.0 else 2)  # once in each process
    assert all("the last weights are kept, not the best" in text for text in texts)


def test_weights_that_were_measured_stay_when_a_later_evaluation_has_no_measure(tmp_path):
    with pytest.warns(UserWarning, match=r"AP can't be measured at step 6: .*; the best are those of step 3"):
        _, progress = start(tmp_path, standin.config(), lambda step: {"AP": {3: 0.1, 6: None}[step]})
    assert (progress.best_step, progress.best) == (3, {"AP": 0.1})


@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")]
)
def test_memory_that_runs_out_between_steps_is_one_line(tmp_path, error):
    def fill(step):
        if step == 2:
            raise error

    with pytest.raises(
        OutOfMemoryError, match=r"memory must be enough for training at step 2 with --batch-size 4, got"
    ) as got:
        start(tmp_path, standin.config(), interfere=fill)
    assert "--accumulate 2" in str(got.value)
    assert "\n" not in str(got.value)


def test_the_evaluated_weights_are_the_averaged_ones(tmp_path):
    state, _ = start(tmp_path, standin.config(), lambda step: {"AP": float(step)})
    parts = standin.submodels()
    parts.weights_model.load_weights(Workdir(tmp_path).weights)
    average = list(state.values())[-5:]
    assert len(state) == 7 + 6 + 5
    for variable, value in zip(parts.weights_model.trainable_variables, average, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_without_validation_the_last_weights_are_saved(tmp_path):
    _, progress = start(tmp_path, standin.config())
    assert (progress.best_step, progress.best) == (6, {})
    assert Workdir(tmp_path).weights.exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path, monkeypatch):
    good = standin.losses

    def bad_at_step_4(submodels, config, batch, noise):
        values = good(submodels, config, batch, noise)
        hit = tf.cast(tf.equal(batch["sample_index"], 12), tf.float32)
        return {**values, "roi_box": values["roi_box"] / (1.0 - hit)}

    monkeypatch.setattr(standin, "losses", bad_at_step_4)
    with pytest.raises(ValueError, match=r"roi_box must be finite, got (inf|nan) at step 4"):
        start(tmp_path, standin.config())
    assert Checkpoints(tmp_path / "checkpoints", {}).steps() == [1, 2, 3]


def test_rows_hold_means_over_the_steps_since_the_row_before(tmp_path):
    _, each = standin.run(standin.config(), make_strategy("one_device"), synchronized=True)
    start(tmp_path, standin.config())
    logged = rows(tmp_path)
    assert [row["step"] for row in logged] == [2, 4, 6]
    for row in logged:
        expected = (each[row["step"] - 2]["loss"] + each[row["step"] - 1]["loss"]) / 2
        assert row["loss"] == pytest.approx(expected, rel=1e-6)
        assert row["images_per_second"] > 0
        assert {"rpn_class", "roi_box", "lr", "grad_norm", "seconds"} <= row.keys()
    assert list((tmp_path / "tensorboard").iterdir())
