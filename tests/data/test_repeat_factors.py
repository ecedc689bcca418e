"""Checks LVIS's rule by hand, and that repeats keep the plan a function of the step."""

import itertools

import numpy as np
import pytest

from kfpn.config.run import Config, InputConfig
from kfpn.data.pipeline import train_batches
from kfpn.data.plan import BatchShare, TrainPlan
from kfpn.data.repeat_factors import describe_order, repeat_factors
from tests.data.test_pipeline import MemorySource, _record


def source_of(labels, crowd=None):
    """Returns a source with one image for each tuple of labels."""
    source = MemorySource([_record(i, boxes=((4, 8, 20, 40),) * len(own)) for i, own in enumerate(labels)])
    for i, (record, own) in enumerate(zip(source.records, labels, strict=True)):
        record.labels[:] = own
        record.crowd[:] = False if crowd is None else crowd[i]
    return source


def test_an_image_has_the_factor_of_its_rarest_class():
    # Of 8 images all but one have class 0, and two have class 1: .875 and .25.
    source = source_of([(0,)] * 5 + [(0, 1, 1), (0,), (1,)])
    every = np.arange(8)
    assert repeat_factors(source, every, 0.0) is None
    assert repeat_factors(source, every, 0.25) is None
    assert repeat_factors(source, every, 1.0).tolist() == pytest.approx(
        [(8 / 7) ** 0.5] * 5 + [2.0, (8 / 7) ** 0.5, 2.0]
    )
    assert repeat_factors(source, every, 0.5).tolist() == pytest.approx([1.0] * 5 + [2**0.5, 1.0, 2**0.5])


def test_shares_are_of_the_images_that_are_trained_on_and_crowd_does_not_count():
    source = source_of([(0,), (0,), (), (1,), (1,)], crowd=[False, False, False, True, False])
    # class 1 has one image of four, class 0 two
    assert repeat_factors(source, np.array([0, 1, 3, 4]), 1.0).tolist() == pytest.approx([2**0.5, 2**0.5, 1.0, 2.0])
    assert repeat_factors(source, np.arange(5), 0.4).tolist() == pytest.approx([1, 1, 1, 1, 2**0.5])
    assert repeat_factors(source_of([(), ()]), np.arange(2), 1.0) is None


def test_what_is_repeated_is_said():
    source = source_of([(0,)] * 7 + [(1,)])
    lines = describe_order(source, InputConfig(repeat_threshold=0.5))
    assert lines == [
        "memory: takes 1 image of rare classes up to 2.0 times an epoch, which is 1.12 times as long "
        "(--input.repeat-threshold 0 takes each once)"
    ]
    assert describe_order(source, InputConfig()) == []


@pytest.fixture
def plan():
    members = np.array([0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1])
    return TrainPlan(members, 3, 5, np.linspace(1.0, 2.5, len(members)))


def test_a_factor_is_rounded_by_chance_and_right_in_the_long_run(plan):
    times = np.diff([plan.times_before(epoch) for epoch in range(41)], axis=0)
    assert (times >= np.floor(plan.repeats)).all()
    assert (times <= np.ceil(plan.repeats)).all()
    assert np.abs(times.sum(0) - 40 * plan.repeats).max() <= 1
    assert (times[:, 0] == 1).all()
    many = TrainPlan(np.zeros(4000, int), 4, 1, np.full(4000, 1.25))
    for epoch in (0, 1, 17):
        share = (many.times_before(epoch + 1) - many.times_before(epoch) == 2).mean()
        assert abs(share - 0.25) < 0.035  # 5 standard errors


def test_each_epoch_has_the_records_as_often_as_it_should_and_the_next_begins_where_it_ends(plan):
    records = {group: [] for group in (0, 1)}
    for batch in itertools.islice(plan.batches(0), 60):
        assert (plan.members[batch.records] == batch.group).all()
        records[batch.group] += batch.records.tolist()
    for group, taken in records.items():
        start = 0
        for epoch in range(4):
            times = plan.times_before(epoch + 1) - plan.times_before(epoch)
            own = np.where(plan.members == group, times, 0)
            part = taken[start : start + own.sum()]
            assert np.bincount(part, minlength=len(times)).tolist() == own.tolist()
            start += own.sum()


@pytest.mark.parametrize("start", [0, 1, 7, 23, 40])
def test_a_plan_with_repeats_goes_on_from_any_step(plan, start):
    whole = list(itertools.islice(plan.batches(0), 60))
    resumed = list(itertools.islice(TrainPlan(plan.members, 3, 5, plan.repeats).batches(start), 60 - start))
    assert [b.step for b in resumed] == list(range(start, 60))
    for expected, batch in zip(whole[start:], resumed, strict=True):
        assert expected.group == batch.group
        assert expected.records.tolist() == batch.records.tolist()


def test_the_seed_decides_which_epoch_has_the_second_copy():
    plans = [TrainPlan(np.zeros(50, int), 5, seed, np.full(50, 1.5)) for seed in (0, 1)]
    assert plans[0].times_before(1).tolist() != plans[1].times_before(1).tolist()


def test_a_plan_whose_factors_are_all_1_is_a_plan_without_repeats():
    members = np.array([0, 1, 0, 0, 1, 0, 0])
    plain, ones = TrainPlan(members, 2, 3), TrainPlan(members, 2, 3, np.ones(7))
    for expected, batch in zip(itertools.islice(plain.batches(0), 30), ones.batches(0), strict=False):
        assert expected.records.tolist() == batch.records.tolist()


def test_batches_with_all_augmentations_are_the_same_after_a_restart_and_in_shares_of_workers():
    source = source_of([(0,)] * 7 + [(1,)])
    options = InputConfig(
        short_side=40, long_side=80, divisor=16, repeat_threshold=1.0, crop=0.5, large_scale_jitter=(0.3, 2.0), turn=0.5,
        flip_vertical=0.5, color_jitter=(0.4,),
    )  # fmt: skip
    config = Config(data="memory", batch_size=4, input=options)

    def taken(start, count, *share):
        return list(itertools.islice(train_batches(source, config, start, *share).as_numpy_iterator(), count))

    whole = taken(0, 6)
    assert len({batch["images"].shape for batch in whole}) == 1
    rare = np.concatenate([batch["record_index"] for batch in whole]).tolist().count(7)
    assert rare / 24 > 1.5 / 8
    for expected, batch in zip(whole[3:], taken(3, 3), strict=True):
        assert all(np.array_equal(expected[key], batch[key]) for key in expected)
    for worker in (0, 1):
        rows = slice(2 * worker, 2 * worker + 2)
        for expected, batch in zip(whole[2:], taken(2, 4, BatchShare(worker, workers=2, replicas=2)), strict=True):
            assert all(np.array_equal(expected[key][rows], batch[key]) for key in expected)
