from dataclasses import dataclass

import pytest

from kfpn.training.evaluation_cost import EvaluationCost, estimate_cost
from kfpn.training.run_costs import RunCosts
from kfpn.training.step_clock import StepClock
from kfpn.training.step_plan import Costs


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_first_step_of_a_shape_is_a_compilation_and_no_step(clock):
    steps = StepClock(clock)
    steps.shapes = 3
    steps.start()
    step = steps.of(lambda batch: batch, lambda batch: batch)
    for shape, seconds in (("wide", 40.0), ("wide", 2.0), ("high", 20.0), ("wide", 4.0), ("high", 3.0)):
        clock.now += seconds
        step(shape)
    steps.close_window()
    assert steps.count == 3
    assert steps.step_seconds() == 3.0
    assert steps.seconds_to_compile() == 30.0


def test_pauses_are_no_steps_and_the_wait_for_a_device_before_one_is(clock):
    steps = StepClock(clock)
    steps.start()
    steps.took("wide")
    for _ in range(4):
        clock.now += 1.0
        steps.took("wide")
    clock.now += 4.0  # the results of the steps are waited for
    with steps.pause() as pause:
        clock.now += 50.0
    steps.close_window()
    assert pause.seconds == 50.0
    assert steps.step_seconds() == 2.0


def test_the_speed_is_that_of_the_last_third_of_the_steps(clock):
    steps = StepClock(clock)
    steps.start()
    steps.took("wide")
    for seconds in (1.0, 1.0, 1.0, 1.0, 5.0, 7.0):
        for _ in range(10):
            clock.now += seconds
            steps.took("wide")
        steps.close_window()
    assert steps.step_seconds() == 6.0


def test_before_any_step_is_measured_a_compilation_stands_for_it(clock):
    steps = StepClock(clock)
    assert steps.step_seconds() == 0.0
    steps.start()
    clock.now += 9.0
    steps.took("wide")
    assert steps.step_seconds() == 9.0


def detection(clock, images, batch, each=0.5, tracing=10.0):
    def detect():
        for first in range(0, images, batch):
            clock.now += tracing * (first == 0 and not detection.traced) + each * batch
            detection.traced = True
            yield from range(first, min(first + batch, images))

    detection.traced = False
    return detect


def test_a_few_batches_tell_what_an_evaluation_costs(clock):
    cost = estimate_cost(detection(clock, 100, 4), 100, 4, 2, limit=600.0, clock=clock)
    assert cost == EvaluationCost(tracing=20.0, detecting=50.0, to_trace=10.0)
    assert clock.now == 100.0 + 10.0 + 16 * 2.0
    assert cost.evaluation == pytest.approx(1.2 * 50.0 + 1.0)


def test_the_first_batches_whose_images_are_decoded_already_do_not_count(clock):
    def detect():
        for index in range(100):
            clock.now += 10.0 * (index == 0) + (0.1 if index < 20 else 0.5)
            yield index

    assert estimate_cost(detect, 100, 4, 1, limit=600.0, clock=clock).detecting == pytest.approx(50.0)


def test_three_batches_are_detected_where_time_is_over(clock):
    cost = estimate_cost(detection(clock, 40, 4), 40, 4, 1, limit=1.0, clock=clock)
    assert cost == EvaluationCost(tracing=10.0, detecting=20.0)
    assert clock.now == 100.0 + 10.0 + 3 * 2.0


def test_images_of_one_batch_are_detected_twice(clock):
    cost = estimate_cost(detection(clock, 3, 4, each=0.75), 3, 4, 1, limit=60.0, clock=clock)
    assert cost.detecting == 3.0
    assert cost.tracing == pytest.approx(10.0)


def test_a_last_batch_that_is_not_full_counts_by_its_images(clock):
    def detect():
        for index in range(6):
            clock.now += 1.0
            yield index

    assert estimate_cost(detect, 6, 4, 1, limit=60.0, clock=clock).detecting == pytest.approx(6.0)


def test_an_evaluation_corrects_what_was_thought_of_it_and_of_the_recall():
    costs = RunCosts({"building": 4.0}, seconds=600.0)
    assert costs.with_steps(2.0, 5.0) == Costs(2.0, 1.0, 1.0, 4.0 + 0.75 * 4.0 + 1.0, 5.0)
    costs.estimate(EvaluationCost(tracing=9.0, detecting=20.0, to_trace=6.0))
    assert costs.with_steps(2.0, 5.0) == Costs(2.0, 25.0, 1.0, 4.0 + 4.5 + 12.0 + 3.0 + 1.0, 11.0)
    costs.measure("evaluation", 56.0)  # 6 s of it made graphs
    costs.measure("checkpoint", 0.5)
    assert costs.learned
    assert costs.with_steps(2.0, 5.0) == Costs(2.0, 50.0, 0.5, 4.0 + 4.5 + 24.0 + 3.0 + 1.0, 5.0)
    costs.has_recall = False
    assert costs.ending == 4.0
    assert RunCosts(costs.known, 600.0).to_trace == 9.0
