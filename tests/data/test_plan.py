import itertools
from dataclasses import replace

import numpy as np
import pytest

from kfpn.config.run import InputConfig
from kfpn.data.plan import TrainPlan, group_by_aspect

INPUT = InputConfig(short_side=64, long_side=128)


def _taken(plan: TrainPlan, start: int, count: int) -> list:
    return list(itertools.islice(plan.batches(start), count))


def test_images_of_one_size_make_one_group_with_a_canvas_of_that_size():
    groups = group_by_aspect(np.full((9, 2), 192), InputConfig(short_side=192, long_side=192), 4)
    assert groups.canvases.tolist() == [[192, 192]]
    assert groups.members.tolist() == [0] * 9


def test_landscape_and_portrait_images_are_in_different_groups():
    sizes = np.array([[100, 200], [200, 100]] * 8)
    groups = group_by_aspect(sizes, INPUT, 4)
    assert sorted(groups.canvases.tolist()) == [[64, 128], [128, 64]]
    assert groups.canvases[groups.members].tolist() == [[64, 128], [128, 64]] * 8


def test_canvas_is_rounded_up_to_the_divisor_and_holds_every_image_at_the_largest_jitter():
    # 50 x 60 with a shorter side of 64 becomes 64 x 77 (76.8), and 1.5 times as large 96 x 115 (115.2). Rounded up to
    # multiples of 32 that is 96 x 128.
    groups = group_by_aspect(np.array([[50, 60]]), INPUT, 1, factor=1.5)
    assert groups.canvases.tolist() == [[96, 128]]


def test_a_rare_shape_joins_its_neighbours_instead_of_waiting_for_a_batch_of_its_own():
    sizes = np.array([[100, 100]] * 20 + [[200, 100]])
    groups = group_by_aspect(sizes, INPUT, 4)
    assert groups.canvases.tolist() == [[128, 64]]
    assert np.bincount(groups.members).tolist() == [21]


def test_many_shapes_make_few_groups_none_smaller_than_a_batch_and_all_images_fit():
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 700, (3000, 2))
    config = InputConfig(short_side=800, long_side=1333, scale_jitter=(0.8, 1.25))
    groups = group_by_aspect(sizes, config, 16, factor=1.25)
    assert 2 <= len(groups.canvases) <= 6
    assert np.bincount(groups.members, minlength=len(groups.canvases)).min() >= 16
    scale = np.minimum(800 / sizes.min(1), 1333 / sizes.max(1)) * 1.25
    assert np.all(sizes * scale[:, None] - 0.5 <= groups.canvases[groups.members])
    ((height, width),) = group_by_aspect(sizes, config, 3000, factor=1.25).canvases  # too few records for two groups
    assert groups.canvases[groups.members].prod(1).mean() < 0.7 * height * width
    assert np.all(groups.canvases % 32 == 0)


@pytest.mark.parametrize("most", [1, 2, 9])
def test_there_are_at_most_as_many_canvases_as_the_option_says(most):
    sizes = np.stack([np.full(4000, 100), np.arange(4000) % 400 + 50], axis=1)
    counts = [len(group_by_aspect(sizes, replace(INPUT, max_canvases=n), 4).canvases) for n in (most, 6)]
    assert counts[0] == most if most < 3 else counts[0] >= counts[1]
    assert counts[0] <= most
    with pytest.raises(ValueError, match=r"input.max_canvases must be .*, got 0"):
        replace(INPUT, max_canvases=0)


@pytest.mark.parametrize("sizes", [np.zeros((0, 2), int), np.array([[0, 5]]), np.array([5, 5])])
def test_sizes_that_are_empty_flat_or_not_positive_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must be"):
        group_by_aspect(sizes, INPUT, 2)


def test_an_epoch_has_every_record_once_if_batches_divide_it():
    plan = TrainPlan(np.zeros(12, int), batch_size=4, seed=3)
    batches = _taken(plan, 0, 9)
    epochs = [np.concatenate([b.records for b in batches[i : i + 3]]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()


def test_records_left_over_begin_the_next_epoch_so_that_no_record_is_used_three_times_more_than_another():
    members = np.array([0] * 10 + [1] * 7)
    plan = TrainPlan(members, batch_size=4, seed=0)
    batches = _taken(plan, 0, 400)
    for batch in batches:
        assert (members[batch.records] == batch.group).all()
    used = np.bincount(np.concatenate([b.records for b in batches]), minlength=17)
    assert np.ptp(used) <= 2
    # After 20 epochs nothing is left over: the groups made 50 and 35 whole batches, with each record 20 times.
    assert plan.first_step(20) == 85
    whole = np.bincount(np.concatenate([b.records for b in batches[:85]]))
    assert whole.tolist() == [20] * 17


@pytest.mark.parametrize(
    ("members", "batch_size"),
    [([0] * 12, 4), ([0] * 10 + [1] * 7 + [2] * 9, 4), ([0] * 3, 16), ([0], 1), ([0, 1, 1, 0, 1], 3)],
)
def test_a_plan_started_at_a_step_goes_on_like_an_uninterrupted_one(members, batch_size):
    plan = TrainPlan(np.array(members), batch_size, seed=5)
    whole = _taken(plan, 0, 40)
    assert [b.step for b in whole] == list(range(40))
    for start in (1, 2, 7, 13, 39):
        for batch, expected in zip(_taken(plan, start, 40 - start), whole[start:], strict=True):
            assert batch.step == expected.step
            assert batch.group == expected.group
            assert batch.records.tolist() == expected.records.tolist()


def test_a_data_set_smaller_than_a_batch_repeats_its_records_evenly():
    (batch,) = _taken(TrainPlan(np.zeros(3, int), batch_size=7, seed=0), 0, 1)
    assert sorted(np.bincount(batch.records)) == [2, 2, 3]


def test_the_seed_changes_the_order():
    first, second = (_taken(TrainPlan(np.zeros(50, int), 50, seed), 0, 1)[0].records.tolist() for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
