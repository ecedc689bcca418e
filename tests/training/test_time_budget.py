"""Tests runs of given minutes on a fake clock, with a network of a few weights."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kfpn.runs.checkpoint import Checkpoints, Progress, named_variables
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.evaluation_cost import EvaluationCost
from kfpn.training.kept_plan import KeptPlan, KeptTimes
from kfpn.training.loop import Loop, Run
from kfpn.training.optimizer import Optimizer
from kfpn.training.step import build_train_step
from kfpn.training.step_plan import Decision
from kfpn.training.time_budget import TimeBudget
from tests.training import standin


class Machine:
    """A machine whose clock goes on by what it does: it can be killed before a step."""

    def __init__(self, folder, minutes=2.0, step=1.0, evaluation=3.0, starts=10.0, **options):
        self.workdir, self.now = Workdir(folder), 1000.0
        self.step, self.evaluation, self.starts = step, evaluation, starts
        self.evaluated = []
        self.config = replace(
            standin.config(jit_compile=False, schedule="cosine", warmup_steps=30),
            minutes=minutes, eval_every=None, checkpoint_every=None, log_every=10, **options,
        )  # fmt: skip
        self.workdir.path.mkdir(parents=True, exist_ok=True)
        if not self.workdir.config.exists():
            self.workdir.config.write_text("{}")

    def budget(self, progress, cluster=None):
        cluster = cluster or Cluster()
        return TimeBudget(self.config, self.workdir, progress, cluster, self.now, lambda: self.now)

    def run(self, killed_before=None, ap=lambda step: step / 1000):
        strategy = make_strategy("one_device")
        parts = standin.submodels()
        optimizer = Optimizer(self.config, parts.weights_model.trainable_variables)
        variables = named_variables(model=parts.weights_model.variables, optimizer=optimizer.variables)
        checkpoints = Checkpoints(self.workdir.checkpoints, variables)
        progress = checkpoints.restore()
        self.pace = self.budget(progress)
        self.pace.use(optimizer.schedule.follow)
        self.pace.probe = lambda seconds: EvaluationCost(0.0, (self.evaluation - 1.0) / 1.2)
        self.now += self.starts
        train = build_train_step(parts, self.config, optimizer, strategy, standin.losses, standin.noise_shapes)

        def step(batch):
            if killed_before is not None and progress.step + 1 == killed_before:
                raise KeyboardInterrupt
            self.now += self.step
            return train(batch)

        def evaluate(step):
            self.now += self.evaluation
            self.evaluated.append(step)
            return {"AP": ap(step)}

        run = Run(
            self.config, self.workdir, parts.weights_model, optimizer, self.pace.steps.of(step, lambda batch: 0),
            checkpoints, progress, evaluate, pace=self.pace,
        )  # fmt: skip
        Loop(run).train(lambda start: iter(standin.batches(self.config, start)))
        return {name: variable.numpy() for name, variable in variables.items()}, progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    machine = Machine(tmp_path_factory.mktemp("whole"))
    variables, progress = machine.run()
    return machine, variables, progress


def kept(machine):
    return json.loads(machine.workdir.minutes.read_text())


def test_a_run_ends_when_its_minutes_are_over(whole):
    machine, _, progress = whole
    used = machine.now - 1000.0 + machine.pace.costs.ending
    assert used == pytest.approx(120.0, rel=0.05)
    assert progress.step == machine.pace.last == progress.evaluated
    assert json.loads(machine.workdir.config.read_text())["steps"] == progress.step
    between = machine.evaluated[:-1]
    assert 1 <= len(between) <= 0.1 * 120.0 / 3.0


def test_rows_say_the_minutes_and_the_rate_ends_near_0_without_a_jump(whole):
    machine, _, _ = whole
    rows = [json.loads(line) for line in machine.workdir.metrics.read_text().splitlines()]
    assert all(row["minutes_planned"] == 2.0 for row in rows)
    used = [row["minutes_used"] for row in rows]
    assert used == sorted(used)
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates[-1] < 0.001 * max(rates)
    assert rates.index(max(rates)) < 4


def test_decisions_are_kept_in_the_checkpoint_and_in_a_file(whole):
    machine, _, progress = whole
    content = kept(machine)
    assert content["decisions"] == progress.decisions
    assert 5 <= len(progress.decisions) <= 12
    assert content["spent"] <= machine.now - 1000.0 + 1e-6
    first = progress.decisions[0]
    assert (first["step"], first["share"]) == (4, 0.0)  # a tenth of the time has passed, and three steps were measured


@pytest.mark.parametrize("killed_before", [5, 22, 45, 70])
def test_a_killed_run_repeats_its_decisions_and_ends_with_the_same_bits(whole, tmp_path, killed_before):
    """It goes on with the file of the whole run: as if that had been killed at its last step and lost its checkpoints since."""
    machine, variables, progress = whole
    killed = Machine(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        killed.run(killed_before)
    killed.workdir.minutes.write_text(machine.workdir.minutes.read_text())
    again = Machine(tmp_path, step=7.0)  # a far slower machine
    again.now += 3600.0
    ended, after = again.run()
    assert after.step == progress.step
    assert after.decisions == progress.decisions
    for name in variables:
        np.testing.assert_array_equal(variables[name], ended[name], err_msg=name)


def test_a_run_that_was_killed_counts_the_time_before_and_not_the_time_between(tmp_path):
    killed = Machine(tmp_path, minutes=4.0)
    with pytest.raises(KeyboardInterrupt):
        killed.run(killed_before=80)
    before = kept(killed)["spent"]
    assert before == pytest.approx(killed.now - 1000.0, abs=11.0)
    again = Machine(tmp_path, minutes=4.0)
    again.now += 5000.0
    begun = again.now
    again.run()
    used = again.now - begun + again.pace.costs.ending
    assert before + used == pytest.approx(240.0, rel=0.05)
    assert again.pace.decisions[: len(killed.pace.decisions)] == killed.pace.decisions


def test_the_plan_of_other_options_is_not_taken(tmp_path):
    machine = Machine(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        machine.run(killed_before=30)
    assert machine.budget(Progress()).decisions
    assert machine.budget(Progress()).used > 20.0
    other = Machine(tmp_path, batch_size=8).budget(Progress())
    assert (other.decisions, other.used) == ([], 0.0)
    machine.workdir.minutes.write_text('{"options": 1, "decisions": 3}')
    assert machine.budget(Progress()).decisions == []


def test_the_plan_is_taken_with_options_that_do_not_act_on_the_weights(tmp_path):
    """A number of detections and a batch norm that is computed over all replicas are such options."""
    machine = Machine(tmp_path)
    machine.config = replace(machine.config, model=replace(machine.config.model, norm="bn"))
    plan = KeptTimes([Decision(20, 0.0, 120, 3, 5, 10.0, 110.0)], checked=25, costs={"evaluation": 3.0}, spent=40.0)
    KeptPlan(machine.workdir.minutes, machine.config).write(plan)
    other = replace(machine.config, steps=120, model=replace(machine.config.model, norm="sync_bn", max_detections=300))
    assert KeptPlan(machine.workdir.minutes, other).read(Progress()) == plan


def test_a_time_that_is_too_short_is_said_early_and_leaves_weights(tmp_path, capsys):
    machine = Machine(tmp_path, minutes=0.2, starts=11.0)
    _, progress = machine.run()
    lines = [line for line in capsys.readouterr().out.splitlines() if "is short" in line]
    assert lines[0].startswith("--minutes 0.2 is short: 11 s of 12 s have passed before the first step")
    assert 1 <= progress.step <= 3
    assert machine.workdir.weights.exists()
    assert not machine.pace.fits_recall()


def test_an_evaluation_that_takes_longer_than_all_is_left_out_and_the_weights_are_kept(tmp_path, capsys):
    machine = Machine(tmp_path, evaluation=200.0)
    _, progress = machine.run()
    assert machine.evaluated == []
    assert (progress.best, progress.best_step) == ({}, progress.step)
    assert machine.workdir.weights.exists()
    assert "is not evaluated: that takes about 200 s, longer than the 2 minutes" in capsys.readouterr().out


def test_evaluations_and_checkpoints_by_hand_keep_their_steps(tmp_path):
    machine = Machine(tmp_path)
    machine.config = replace(machine.config, eval_every=25, checkpoint_every=40)
    _, progress = machine.run()
    assert machine.evaluated == [*range(25, progress.step, 25), progress.step]
    assert machine.now - 1000.0 + machine.pace.costs.ending == pytest.approx(120.0, rel=0.05)


class Chief(Cluster):
    """Hears nothing from the other worker, whose answers are not looked at."""

    several = True

    def gather(self, value):
        self.sent = value
        return [value, 0]


class Follower(Cluster):
    several, is_chief = True, False

    def __init__(self, chief):
        super().__init__()
        self.chief = chief

    def gather(self, value):
        assert value == 0
        return [self.chief.sent, 0]


def test_the_other_workers_follow_the_chief(tmp_path):
    machine = Machine(tmp_path)
    chief = Chief()
    pace, other = machine.budget(Progress(), chief), machine.budget(Progress(), Follower(chief))
    pace.begin()
    for step in range(1, 60):
        machine.now += 1.0 if step < 40 else 3.0
        pace.steps.took(0)
        assert pace.checks(step) == other.checks(step)
        if pace.checks(step):
            pace.decide(step)
            other.decide(step)
        assert (pace.last, pace.evaluates(step), pace.saves(step)) == (
            other.last,
            other.evaluates(step),
            other.saves(step),
        )
    assert len(other.decisions) > 2
    assert [(d.step, d.share, d.last) for d in other.decisions] == [(d.step, d.share, d.last) for d in pace.decisions]


def test_patience_ends_a_run_whose_ap_does_not_rise(tmp_path, capsys):
    machine = Machine(tmp_path, minutes=4.0, patience=2)
    machine.config = replace(machine.config, eval_every=10)
    _, progress = machine.run(ap=lambda step: 0.5 if step == 20 else 0.1)
    assert machine.evaluated == [10, 20, 30, 40]
    assert (progress.step, progress.best_step, progress.stale) == (40, 20, 2)
    assert "stops at step 40: 2 evaluations without a better AP (--patience 2)" in capsys.readouterr().out
    machine.config = replace(machine.config, patience=3)
    _, progress = machine.run(ap=lambda step: 0.1)
    assert progress.step == 50
