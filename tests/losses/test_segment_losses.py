"""Tests which windows are positive, what they should predict, and the losses of segments, by hand arithmetic."""

import dataclasses

import numpy as np
import pytest

from kfpn.config.run import Config, SamplingConfig
from kfpn.losses.segment_losses import positive_windows, segment_losses, segment_noise_shapes
from kfpn.losses.segment_targets import assign_windows, grids_of_objects
from kfpn.losses.training_losses import training_functions
from kfpn.modeling.segment_submodels import build_segment_submodels
from kfpn.ops.segment_windows import window_count
from tests.modeling import tiny

PAPER = (32.0, 64.0, 128.0, 256.0, 512.0)
P2, P3, P4, P5, P6 = range(5)
COUNTS = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]


def segments(**changes):
    return tiny.config(task="segments", **{"anchor_sizes": PAPER, **changes})


def truth(*boxes, labels=None, crowd=None):
    count = len(boxes)
    return {
        "gt_boxes": np.array([boxes], "float32"),
        "gt_labels": np.array([labels or [0] * count], "int32"),
        "gt_crowd": np.array([crowd or [False] * count]),
    }


def square(side, y=32.0, x=32.0):
    return [y - side / 2, x - side / 2, y + side / 2, x + side / 2]


def assigned(gt, config, counts=COUNTS, size=(64, 64)):
    matched, index = (np.array(part)[0] for part in assign_windows(counts, gt, np.array([size]), config))
    ends = np.cumsum([h * w for h, w in counts] * (2 if config.segment_windows == "both" else 1))[:-1]
    grids = [part.reshape(-1) for part in np.split(matched, ends)]
    return grids, index


@pytest.mark.parametrize(
    ("windows", "sides", "grids"),
    [
        # With one kind of window the bounds lie half an octave from the sizes, with both a quarter.
        ("5x5", [1, 32, 45, 46, 64, 512, 2000], [P2, P2, P2, P3, P3, P6, P6]),
        ("7x7", [32, 45.3, 63, 65, 90.5], [P2, P2, P2, P3, P3]),
        ("both", [32, 38, 39, 53, 54, 64, 512, 700], [P2, P2, 5 + P2, 5 + P2, P3, P3, P6, 5 + P6]),
    ],
)
def test_an_object_belongs_to_the_size_that_is_nearest_to_its_larger_side_in_log_space(windows, sides, grids):
    boxes = np.array([[[0, 0, side, side / 3] if i % 2 else [0, 0, side / 3, side] for i, side in enumerate(sides)]])
    own = grids_of_objects(boxes.astype("float32"), segments(segment_windows=windows))
    assert np.array(own)[0].tolist() == grids


def test_of_two_sizes_that_are_equally_near_an_object_belongs_to_the_first():
    config = segments(anchor_sizes=(16.0, 64.0, 256.0, 1024.0, 4096.0), segment_windows="5x5")
    boxes = np.array([[[0, 0, 31, 9], [0, 0, 32, 9], [0, 0, 33, 9], [0, 0, 9, 128]]], "float32")
    assert np.array(grids_of_objects(boxes, config))[0].tolist() == [P2, P2, P3, P3]


def test_a_single_level_has_the_objects_within_half_an_octave_of_its_size_alone():
    config = segments(pyramid="c4", anchor_sizes=(40.0,), segment_windows="5x5")
    sides = [10, 28, 28.5, 40, 56, 57, 300]
    boxes = np.array([[[0, 0, side, 5] for side in sides]], "float32")
    assert np.array(grids_of_objects(boxes, config))[0].tolist() == [-1, -1, 0, 0, 0, -1, -1]
    # Windows on objects of other sizes are negative.
    (grid,), index = assigned(truth(square(20, 16, 16), square(40, 48, 48)), config, [(4, 4)])
    grid = grid.reshape(4, 4)
    assert (grid[2:, 2:] == 1).all()  # within 16 pixels of (48, 48)
    assert grid.sum() == 4
    assert set(index[grid.reshape(-1) == 1].tolist()) == {1}


def test_windows_within_a_cell_of_the_centre_are_positive():
    grids, _ = assigned(truth(square(32, y=30.0, x=32.0)), segments())
    positive = np.argwhere(grids[P2].reshape(16, 16) == 1)
    # The centre is (30, 32): rows at 28 and 32 are 2 pixels away, columns at 28, 32 and 36 are 4, 0 and 4.
    assert {tuple(cell) for cell in positive.tolist()} == {(7, 7), (7, 8), (7, 9), (8, 7), (8, 8), (8, 9)}
    assert sum((grid == 1).sum() for grid in grids) == 6
    assert all((grid >= 0).all() for grid in grids)


def test_of_two_centres_the_nearer_one_counts_and_of_equal_ones_the_first():
    _, index = assigned(truth(square(32, x=32.0), square(32, x=36.0)), segments(segment_windows="5x5"))
    row = index.reshape(-1)[: 16 * 16].reshape(16, 16)[8]
    assert row[7] == 0
    assert row[8] == 0
    assert row[9] == 1
    _, index = assigned(truth(square(32), square(34)), segments(segment_windows="5x5"))
    assert index[: 16 * 16].reshape(16, 16)[8, 8] == 0


def test_every_object_within_the_image_has_a_positive_window():
    config, rng = segments(), np.random.default_rng(0)
    for _ in range(20):
        y, x = rng.uniform(0, 64, 2)
        grids, _ = assigned(truth(square(float(rng.choice([20, 45, 64, 90, 130, 300])), y, x)), config)
        assert sum((grid == 1).sum() for grid in grids) >= 1


def test_crowd_and_padding_are_ignored_and_empty_rows_match_nothing():
    gt = truth([0, 0, 16, 8], square(32), [0, 0, 0, 0], labels=[1, 0, -1], crowd=[True, False, False])
    grids, _ = assigned(gt, segments(segment_windows="5x5"), size=(64, 40))
    p2 = grids[P2].reshape(16, 16)
    assert (p2[:5, :3] == -1).all()  # cells at 0 to 16 and 0 to 8
    assert p2[5, 0] == p2[0, 3] == 0
    assert (p2[:, 10:] == -1).all()  # 40 pixels are 10 columns
    assert (p2[7:10, 7:10] == 1).all()
    empty, _ = assigned(truth([0, 0, 0, 0], labels=[-1]), segments())
    assert all((grid == 0).all() for grid in empty)


SAMPLING = SamplingConfig(segment_batch=16)


def setup(**changes):
    model = segments(anchor_sizes=(8.0, 16.0, 32.0, 64.0, 128.0), segment_width=24, **changes)
    return Config(model=model, sampling=SAMPLING), build_segment_submodels(model)


def batch_of(config, size=(64, 96), boxes=3, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 30, (2, boxes, 2))
    batch = {
        "images": np.stack([tiny.image(*size, seed=seed + i) for i in range(2)]),
        "image_sizes": np.full((2, 2), size, "int32"),
        "gt_boxes": np.concatenate([start, start + rng.uniform(8, 30, (2, boxes, 2))], -1).astype("float32"),
        "gt_labels": np.zeros((2, boxes), "int32"),
        "gt_crowd": np.zeros((2, boxes), bool),
        "gt_has_mask": np.ones((2, boxes), bool),
        "gt_masks": rng.integers(0, 2, (2, boxes, 112, 112)).astype("uint8"),
    }
    shapes = segment_noise_shapes(config, *size, boxes)
    return batch, {key: rng.uniform(size=(2, *shape)).astype("float32") for key, shape in shapes.items()}


def zero_heads(submodels):
    """Lets all scores and masks have the logit 0."""
    for head in submodels.windows.values():
        for variable in (*head.score.variables, *head.mask.variables):
            variable.assign(np.zeros(variable.shape))


def values(losses):
    return {name: np.array(value) for name, value in losses.items()}


def test_the_losses_of_logits_of_zero_are_log_2_and_masks_weigh_ten_times():
    config, submodels = setup()
    zero_heads(submodels)
    batch, noise = batch_of(config)
    losses = values(segment_losses(submodels, config, batch, noise))
    np.testing.assert_allclose(losses["segment_score"], np.log(2), rtol=1e-5)
    np.testing.assert_allclose(losses["segment_mask"], 10 * np.log(2), rtol=1e-5)
    light = dataclasses.replace(config, sampling=dataclasses.replace(SAMPLING, segment_mask_weight=0.5))
    halved = values(segment_losses(submodels, light, batch, noise))
    np.testing.assert_allclose(halved["segment_mask"], 0.5 * np.log(2), rtol=1e-5)
    batch["gt_has_mask"][1] = False
    assert values(segment_losses(submodels, config, batch, noise))["segment_mask"].tolist()[1] == 0.0


def test_scores_are_drawn_to_1_at_positives_and_masks_to_the_cells_of_the_object():
    # All scores have the logit 2; all masks the logit 3 in the first 7 rows of cells and -3 in the others.
    config, submodels = setup(segment_windows="5x5")
    zero_heads(submodels)
    head = submodels.windows["5x5"]
    head.score.variables[1].assign([2.0])
    head.mask.variables[1].assign(np.where(np.arange(14 * 14) < 7 * 14, 3.0, -3.0))
    batch, noise = batch_of(config, boxes=1)
    # An object of 16 pixels belongs to P3, whose windows have 20: at its centre (40, 40) the window is 30 to 50.
    batch["gt_boxes"][:] = [32, 32, 48, 48]
    batch["gt_masks"][:] = 1
    # Of all windows the one at the centre, row 5 and column 5 of P3, has the largest noise, and no negative has less than the others.
    noise["segments"][:] *= 0.5
    centre = 16 * 24 + 5 * 12 + 5
    noise["segments"][:, centre] = 0.9
    one = dataclasses.replace(config, sampling=dataclasses.replace(SAMPLING, segment_batch=4))
    losses = values(segment_losses(submodels, one, batch, noise))
    to_1, to_0 = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    np.testing.assert_allclose(losses["segment_score"], (to_1 + 3 * to_0) / 4, rtol=1e-5)
    # Cells are 20 / 14 pixels; the object begins at cell 1.4 and ends at 12.6: at least half of cells 2 to 11 lie in it, of 1 and 12 .6.
    inside = np.zeros((14, 14), bool)
    inside[1:13, 1:13] = np.outer(*[np.r_[0.6, np.ones(10), 0.6]] * 2) >= 0.5
    logits = np.where(np.arange(14)[:, None] < 7, 3.0, -3.0) * np.ones((14, 14))
    entropy = np.log1p(np.exp(np.where(inside, -logits, logits)))
    np.testing.assert_allclose(losses["segment_mask"], 10 * entropy.mean(), rtol=1e-5)


def test_at_most_a_quarter_of_the_sample_is_positive():
    assert positive_windows(SAMPLING) == 4
    assert positive_windows(SamplingConfig()) == 32
    # A sample without a place for a positive would never learn a mask.
    assert positive_windows(SamplingConfig(segment_batch=4)) == 1
    with pytest.raises(
        ValueError, match=r"segment_positive_fraction must give at least one of the 3 windows .* got 0.25"
    ):
        SamplingConfig(segment_batch=3)


def test_padding_changes_no_loss():
    config, submodels = setup()
    tiny.shake(submodels.weights_model)
    batch, noise = batch_of(config, size=(50, 70))
    alone = values(segment_losses(submodels, config, batch, noise))
    canvas = np.full((2, 64, 96, 3), 37, "uint8")
    canvas[:, :50, :70] = batch["images"]
    wide = np.zeros((2, window_count(config.model, 64, 96)), "float32")
    before, behind = 0, 0
    for _ in ("5x5", "7x7"):
        for stride in (4, 8, 16, 32, 64):
            small, large = ((-(-50 // stride), -(-70 // stride)), (-(-64 // stride), -(-96 // stride)))
            part = noise["segments"][:, before : before + small[0] * small[1]].reshape(2, *small)
            grid = np.zeros((2, *large), "float32")
            grid[:, : small[0], : small[1]] = part
            wide[:, behind : behind + large[0] * large[1]] = grid.reshape(2, -1)
            before, behind = before + small[0] * small[1], behind + large[0] * large[1]
    padded = values(segment_losses(submodels, config, {**batch, "images": canvas}, {"segments": wide}))
    for name, value in alone.items():
        np.testing.assert_allclose(padded[name], value, rtol=2e-4, err_msg=name)


def test_a_run_with_task_segments_has_these_losses_and_this_noise():
    config, _ = setup()
    assert training_functions(config) == (segment_losses, segment_noise_shapes)
