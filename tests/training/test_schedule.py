import keras
import numpy as np
import pytest

from kfpn.config.run import OptimizerConfig
from kfpn.training.schedule import WarmupSchedule, make_schedule
from kfpn.training.step_plan import Decision


def test_warmup_rises_linearly_from_its_factor():
    schedule = WarmupSchedule(0.4, 100, warmup_steps=10, warmup_factor=0.25)
    assert [float(schedule(step)) for step in (0, 5, 10, 50)] == pytest.approx([0.1, 0.25, 0.4, 0.4])


def test_the_1x_schedule_drops_at_60k_and_80k_of_90k_steps():
    schedule = make_schedule(OptimizerConfig(), steps=90_000, batch_size=16)
    assert schedule.milestones == (60_000, 80_000)
    rates = [float(schedule(step)) for step in (0, 59_999, 60_000, 79_999, 80_000, 89_999)]
    assert rates == pytest.approx([2e-5, 0.02, 0.002, 0.002, 0.0002, 0.0002])


def test_the_rate_is_proportional_to_the_global_batch():
    schedule = make_schedule(OptimizerConfig(learning_rate=0.02, reference_batch=16, warmup_steps=0), 10, 4)
    assert float(schedule(0)) == pytest.approx(0.005)


def test_cosine_is_full_at_the_start_half_midway_and_zero_at_the_end():
    schedule = WarmupSchedule(0.8, 40, kind="cosine")
    assert [float(schedule(step)) for step in (0, 20, 40, 50)] == pytest.approx([0.8, 0.4, 0.0, 0.0], abs=1e-7)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be 'step' or 'cosine', got 'poly'"):
        WarmupSchedule(0.1, 10, kind="poly")


def test_a_schedule_is_the_same_after_serialization():
    schedule = WarmupSchedule(0.8, 40, 4, 0.1, "step", (20, 30), 0.5)
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert [float(copy(s)) for s in range(0, 40, 7)] == [float(schedule(s)) for s in range(0, 40, 7)]


def planned(**fields):
    config = OptimizerConfig(learning_rate=0.8, reference_batch=4, warmup_factor=0.0, **fields)
    return make_schedule(config, None, 4)


def test_until_the_first_plan_the_warmup_alone_moves_the_rate():
    schedule = planned(warmup_steps=10, schedule="cosine")
    np.testing.assert_allclose([schedule(step) for step in (0, 5, 10, 500)], [0.0, 0.4, 0.8, 0.8], rtol=1e-6)


def test_a_planned_rate_does_not_jump_and_comes_to_its_end_at_the_last_step():
    schedule = planned(warmup_steps=0, schedule="cosine")
    first = Decision(20, 0.0, 120, 1, 1)
    schedule.follow(first, first)
    assert float(schedule(20)) == pytest.approx(0.8)
    half = float(schedule(70))
    assert half == pytest.approx(0.4, rel=1e-5)
    schedule.follow(Decision(70, first.share_at(70), 90, 1, 1), first)
    assert float(schedule(70)) == pytest.approx(half, rel=1e-6)
    np.testing.assert_allclose([schedule(80), schedule(90)], [0.8 * 0.5 * (1 - 2**-0.5), 0.0], atol=1e-7)


def test_milestones_are_shares_of_what_is_planned():
    schedule = planned(warmup_steps=0, milestones=(0.5, 0.75))
    first = Decision(20, 0.0, 120, 1, 1)
    schedule.follow(first, first)
    np.testing.assert_allclose([schedule(69), schedule(71), schedule(96)], [0.8, 0.08, 0.008], rtol=1e-5)


def test_a_warmup_that_is_cut_rises_on_from_where_it_is():
    schedule = planned(warmup_steps=100, milestones=())
    assert float(schedule(20)) == pytest.approx(0.16)
    first = Decision(20, 0.0, 300, 1, 1)
    schedule.follow(first, first)
    np.testing.assert_allclose(
        [schedule(20), schedule(25), schedule(30), schedule(99)], [0.16, 0.48, 0.8, 0.8], rtol=1e-5
    )
    schedule.follow(Decision(25, first.share_at(25), 1000, 1, 1), first)
    assert float(schedule(25)) == pytest.approx(0.48)
