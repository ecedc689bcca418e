import signal
from types import SimpleNamespace

import tensorflow as tf

from kfpn.training.shared_stop import SharedStop


class Workers:
    """Stands in for a cluster, an optimizer and a step: two workers whose wishes to stop are summed in the step."""

    several = True

    def __init__(self):
        self.asks = 0.0

    def any(self, flag):
        return flag

    def request_stop(self):
        self.asks = 1.0

    def train(self, other):
        return {"loss": tf.constant(1.0), "stop": tf.constant(self.asks + other)}


def stop(number=None):
    return SimpleNamespace(signal=number)


def test_workers_see_a_wish_to_stop_one_step_after_the_step_that_carries_it():
    workers = Workers()
    shared = SharedStop(workers, workers)
    seen = []
    for other in (0.0, 0.0, 1.0, 1.0):
        assert set(shared.step(workers.train, other, stop())) == {"loss"}
        seen.append(shared.wanted(stop()))
    assert seen == [False, False, False, True]


def test_a_signal_travels_with_the_next_step_and_only_then_stops_its_own_worker():
    workers = Workers()
    shared = SharedStop(workers, workers)
    assert not shared.wanted(stop(signal.SIGTERM))
    assert not shared.saves_at_exit(stop(signal.SIGTERM))
    shared.step(workers.train, 0.0, stop(signal.SIGTERM))
    assert workers.asks == 1.0
    assert not shared.wanted(stop(signal.SIGTERM))
    shared.step(workers.train, 0.0, stop(signal.SIGTERM))
    assert shared.wanted(stop(signal.SIGTERM))


def test_after_an_evaluation_workers_meet_and_stop_at_once():
    workers = Workers()
    shared = SharedStop(workers, workers)
    shared.meet(stop())
    assert not shared.wanted(stop())
    shared.meet(stop(signal.SIGTERM))
    assert shared.wanted(stop(signal.SIGTERM))


def test_steps_that_are_taken_again_are_forgotten():
    workers = Workers()
    shared = SharedStop(workers, workers)
    for _ in range(2):
        shared.step(workers.train, 1.0, stop())
    shared.forget()
    assert not shared.wanted(stop())


def test_a_single_process_stops_before_its_next_step():
    alone = SimpleNamespace(several=False)
    shared = SharedStop(alone, alone)
    assert not shared.wanted(stop())
    assert shared.wanted(stop(signal.SIGINT))
    assert shared.saves_at_exit(stop(signal.SIGINT))
    assert shared.step(lambda batch: {"loss": batch}, 3, stop()) == {"loss": 3}
