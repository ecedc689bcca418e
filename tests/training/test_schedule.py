import keras
import pytest

from kfpn.config.run import OptimizerConfig
from kfpn.training.schedule import WarmupSchedule, make_schedule


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
