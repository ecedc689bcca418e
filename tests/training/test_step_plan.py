import pytest

from kfpn.training.step_plan import (
    Costs,
    Decision,
    TimeLimit,
    correction_is_due,
    first_plan_is_due,
    plan_lines,
    plan_steps,
    warmup_end,
)


def test_the_steps_are_what_fits_between_now_and_the_end():
    # 600 s, 100 used, 30 for the end, 20 + 0 for the last evaluation; 2 evaluations of 20 s between; 2 s a step.
    costs = Costs(step=2.0, evaluation=20.0, checkpoint=0.0, ending=30.0)
    plan = plan_steps(TimeLimit(600.0, checkpoint_every=1000), 20, None, 100.0, costs)
    assert plan.evaluations == 1 + 3
    assert plan.last == 20 + (600 - 30 - 20 - 100 - 3 * 20) // 2
    assert (plan.step, plan.share, plan.used, plan.until) == (20, 0.0, 100.0, 550.0)


def test_what_is_given_by_hand_costs_its_time_a_step():
    costs = Costs(step=1.0, evaluation=9.0, checkpoint=1.0, ending=0.0)
    plan = plan_steps(TimeLimit(1010.0, eval_every=10, checkpoint_every=2), 0, None, 0.0, costs)
    assert plan.last == 1000 / (1 + 10 / 10 + 1 / 2)
    assert plan.evaluations == plan.saves == 1


def test_compilations_to_come_are_taken_off():
    costs = Costs(1.0, 0.0, 0.0, 0.0, compilations=50.0)
    assert plan_steps(TimeLimit(101.0, 10**9, 10**9), 0, None, 0.0, costs).last == 51


def test_evaluations_between_take_at_most_a_tenth_and_checkpoints_a_fiftieth_of_the_time():
    for seconds in (60.0, 120.0, 900.0, 2700.0):
        for cost in (0.01, 1.0, 7.0, 40.0, 500.0):
            plan = plan_steps(TimeLimit(seconds), 20, None, 10.0, Costs(0.5, cost, 0.5, 1.0))
            assert (plan.evaluations - 1) * (cost + 0.5) <= 0.1 * seconds
            assert (plan.saves - 1) * 0.5 <= 0.02 * seconds


def test_a_correction_goes_on_from_the_share_that_is_done():
    before = Decision(20, 0.0, 120, 3, 5, 10.0, 110.0)
    plan = plan_steps(TimeLimit(120.0), 70, before, 60.0, Costs(2.0, 1.0, 0.1, 9.0))
    assert before.share_at(70) == plan.share == plan.share_at(70) == 0.5
    assert plan.share_at(plan.last) == 1.0
    assert 70 < plan.last < 120


@pytest.mark.parametrize("used", [119.0, 120.0, 1e6])
def test_a_run_whose_time_is_over_takes_one_step_more(used):
    plan = plan_steps(TimeLimit(120.0), 33, Decision(20, 0.0, 120, 3, 5, 10.0, 110.0), used, Costs(2.0, 1.0, 0.1, 9.0))
    assert plan.last == 34
    assert plan.share_at(34) == 1.0
    assert plan.until >= used


def test_each_part_is_completed_once_whatever_is_corrected_between():
    plans = [Decision(20, 0.0, 120, 4, 7)]
    evaluated, saved = [], []
    step = 20
    corrections = {27: 61, 45: 200, 46: 199, 90: 101}
    while step < plans[-1].last:
        step += 1
        if plans[-1].completes_part(step, 4) and step < plans[-1].last:
            evaluated.append(step)
        if plans[-1].completes_part(step, 7) and step < plans[-1].last:
            saved.append(step)
        if step in corrections:
            plans.append(Decision(step, plans[-1].share_at(step), corrections[step], 4, 7))
    assert step == 101
    assert len(evaluated) == 3
    assert len(saved) == 6


def test_the_first_plan_waits_for_some_steps_unless_time_runs_out():
    assert not first_plan_is_due(0.05, 19)
    assert first_plan_is_due(0.0, 20)
    assert not first_plan_is_due(0.2, 2)
    assert first_plan_is_due(0.2, 3)
    assert first_plan_is_due(0.4, 1)
    assert not first_plan_is_due(0.9, 0)
    assert first_plan_is_due(1.0, 0)


def test_a_plan_is_corrected_at_shares_of_the_time_and_where_the_run_is_off():
    plan = Decision(20, 0.0, 120, 1, 1, used=12.0, until=112.0)
    assert not correction_is_due(plan, 30, 22.0, 120.0)
    assert correction_is_due(plan, 30, 24.5, 120.0)  # 2.5 s late
    assert correction_is_due(plan, 30, 19.5, 120.0)  # 2.5 s early
    assert not correction_is_due(plan, 37, 29.5, 120.0)
    assert correction_is_due(plan, 38, 30.0, 120.0)  # a quarter of the time
    assert correction_is_due(plan, 38, 29.0, 120.0)  # a quarter was expected here


def test_a_warmup_takes_at_most_a_tenth_of_the_planned_steps():
    assert warmup_end(Decision(20, 0.0, 2000, 1, 1), 100) == 100
    assert warmup_end(Decision(20, 0.0, 500, 1, 1), 100) == 50
    assert warmup_end(Decision(20, 0.0, 100, 1, 1), 100) == 25  # it does not jump
    assert warmup_end(Decision(20, 0.0, 22, 1, 1), 100) == 22
    assert warmup_end(Decision(20, 0.0, 100, 1, 1), 10) == 10


def test_a_short_time_is_said():
    short = Decision(4, 0.0, 7, 1, 1, 100.0, 105.0)
    lines = plan_lines(TimeLimit(120.0), short, Costs(1.5, 5.0, 1.0, 9.0))
    assert len(lines) == 2
    assert lines[1].startswith("--minutes 2 is short: of 120 s 100 s have passed")
    assert len(plan_lines(TimeLimit(1200.0), Decision(20, 0.0, 700, 1, 1), Costs(1.5, 5.0, 1.0, 9.0))) == 1


class Machine:
    """A run on a fake clock: `speed(seconds)` is the seconds of a step at that time."""

    def __init__(self, minutes, speed, evaluation=8.0, ending=10.0, before=15.0, compilation=30.0):
        self.limit, self.speed, self.evaluation, self.ending = TimeLimit(60.0 * minutes), speed, evaluation, ending
        self.now = before + compilation
        self.plans, self.evaluations = [], 0

    def run(self):
        step, recent = 0, []
        while not self.plans or step < self.plans[-1].last:
            took = self.speed(self.now)
            self.now, step, recent = self.now + took, step + 1, [*recent, took]
            plan = self.plans[-1] if self.plans else None
            if plan and step < plan.last and plan.completes_part(step, plan.evaluations):
                self.now, self.evaluations = self.now + self.evaluation, self.evaluations + 1
            if plan and (step == plan.last or (step - plan.step) % plan.steps_between_checks):
                continue
            seconds = self.limit.seconds
            due = (
                correction_is_due(plan, step, self.now, seconds)
                if plan
                else first_plan_is_due(self.now / seconds, step)
            )
            if due:
                of_late = recent[-max(8, len(recent) // 3) :]
                costs = Costs(sum(of_late) / len(of_late), self.evaluation, 0.1, self.ending)
                self.plans.append(plan_steps(self.limit, step, plan, self.now, costs))
        return self.now + self.evaluation + self.ending


@pytest.mark.parametrize(
    "speed",
    [
        lambda now: 0.1,
        lambda now: 1.7,
        lambda now: 0.5 if now < 130 else 1.5,
        lambda now: 1.5 if now < 130 else 0.5,
        lambda now: 0.3 if now // 40 % 2 else 0.9,
        lambda now: 0.2 + now / 600,
    ],
    ids=["fast", "slow", "slower", "faster", "in turns", "slower and slower"],
)
@pytest.mark.parametrize("minutes", [3, 4, 15])
def test_a_run_ends_within_a_twentieth_of_its_time_whatever_the_machine_does(minutes, speed):
    machine = Machine(minutes, speed)
    assert machine.run() == pytest.approx(60 * minutes, rel=0.05)
    assert len(machine.plans) < 40
    shares = [
        plan.share_at(step)
        for plan, after in zip(machine.plans, [*machine.plans[1:], None], strict=True)
        for step in range(plan.step, (after.step if after else plan.last) + 1)
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert machine.evaluations * machine.evaluation <= 0.1 * 60 * minutes
