"""Checks by hand and by marked pixels that boxes stay on what they enclose, whatever part of an image is shown and however it is turned."""

import dataclasses

import numpy as np
import pytest

from kfpn.config.run import Config, InputConfig
from kfpn.data.augment import flip_boxes_vertical, turn_boxes
from kfpn.data.record import Record
from kfpn.data.training_sample import training_sample
from kfpn.data.views import View, choose_view, cut_boxes, random_numbers

INPUT = InputConfig(short_side=60, long_side=120, flip=0.0)
NONE = np.zeros((0, 4), np.float32)


def boxes_of(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [(0, (1, 2, 3, 6)), (1, (4, 1, 8, 3)), (2, (1, 4, 3, 8)), (3, (2, 1, 6, 3)), (4, (1, 2, 3, 6))],
)
def test_a_box_is_turned_as_numpy_turns_the_image(turns, expected):
    image = np.zeros((4, 10), np.uint8)
    image[1:3, 2:6] = 1
    (box,) = turn_boxes(boxes_of((1, 2, 3, 6)), (4, 10), turns).tolist()
    assert tuple(box) == expected
    y1, x1, y2, x2 = map(int, box)
    turned = np.rot90(image, turns)
    assert turned[y1:y2, x1:x2].all()
    assert turned.sum() == (y2 - y1) * (x2 - x1)


def test_a_vertical_flip_exchanges_top_and_bottom():
    assert flip_boxes_vertical(boxes_of((1, 2, 3, 6)), 10).tolist() == [[7, 2, 9, 6]]
    assert flip_boxes_vertical(NONE, 10).shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "cut", "share"),
    [
        ((20, 20, 30, 30), (10, 10, 20, 20), 1.0),
        ((0, 20, 20, 30), (0, 10, 10, 20), 0.5),
        ((0, 0, 20, 20), (0, 0, 10, 10), 0.25),
        ((10, 10, 50, 50), (0, 0, 40, 40), 1.0),
        ((45, 45, 65, 85), (35, 35, 40, 40), 0.03125),
        ((0, 0, 10, 50), None, 0.0),  # it touches the window
        ((70, 70, 90, 90), None, 0.0),
    ],
)
def test_a_box_is_cut_to_the_window_and_kept_by_the_share_of_its_area(box, cut, share):
    window = (10, 10, 50, 50)
    for least in (0.02, 0.25, 0.3, 0.5, 1.0):
        boxes, kept = cut_boxes(boxes_of(box), np.array([False]), window, least)
        assert kept.tolist() == [share >= least]
        if kept[0]:
            assert boxes[0].tolist() == list(cut)
    boxes, kept = cut_boxes(boxes_of(box), np.array([True]), window, 1.0)
    assert kept.tolist() == [cut is not None]  # of a crowd region any part stays
    if cut:
        assert boxes[0].tolist() == list(cut)


def test_no_box_at_all_is_cut():
    boxes, kept = cut_boxes(NONE, np.zeros(0, bool), (0, 0, 5, 5), 0.5)
    assert boxes.shape == (0, 4)
    assert kept.shape == (0,)


@pytest.mark.parametrize(
    ("view", "size"),
    [
        (View((0, 0, 100, 200)), (60, 120)),
        (View((0, 0, 50, 100)), (60, 120)),  # a quarter of the image is enlarged to its size
        (View((0, 0, 50, 50)), (60, 60)),  # a square fits by its height
        (View((10, 0, 35, 100)), (30, 120)),
        (View((0, 0, 100, 200), shrink=0.5), (30, 60)),
        (View((0, 0, 100, 200), shrink=0.001), (1, 1)),
        (View((0, 0, 100, 200), turns=1), (30, 60)),  # turned it is 60 high and 30 wide
        (View((0, 0, 100, 200), turns=2), (60, 120)),
        (View((0, 0, 100, 50), turns=3), (120, 60)),  # turned it is 60 high and 120 wide
    ],
)
def test_a_view_is_as_large_as_fits_the_size_of_the_whole_image(view, size):
    assert view.resized((60, 120)) == size


def test_views_depend_on_seed_and_sample_alone_and_each_part_of_chance_on_its_own_option():
    boxes = boxes_of((40, 80, 60, 120))
    alone = {
        "crop": InputConfig(crop=1.0),
        "large_scale_jitter": InputConfig(large_scale_jitter=(0.1, 0.9)),
        "flip_vertical": InputConfig(flip_vertical=0.5),
        "turn": InputConfig(turn=0.5),
    }
    together = InputConfig(crop=1.0, large_scale_jitter=(0.1, 0.9), flip_vertical=0.5, turn=0.5)
    views = [choose_view((100, 200), boxes, together, 3, sample) for sample in range(40)]
    assert views == [choose_view((100, 200), boxes, together, 3, sample) for sample in range(40)]
    assert len(set(views)) == 40
    assert views != [choose_view((100, 200), boxes, together, 4, sample) for sample in range(40)]
    for sample, view in enumerate(views):
        ones = {name: choose_view((100, 200), boxes, config, 3, sample) for name, config in alone.items()}
        assert view.window == ones["crop"].window
        assert view.shrink == ones["large_scale_jitter"].shrink
        assert view.flip_vertical == ones["flip_vertical"].flip_vertical
        assert view.turns == ones["turn"].turns
    assert choose_view((100, 200), boxes, InputConfig(), 3, 0) is None


def test_chance_has_the_configured_ranges_and_probabilities():
    config = InputConfig(crop=0.5, crop_area=(0.25, 0.5), flip_vertical=0.25, turn=0.75)
    views = [choose_view((300, 400), NONE, config, 0, sample) for sample in range(400)]
    cut = [view.window for view in views if view.window != (0, 0, 300, 400)]
    assert abs(len(cut) / 400 - 0.5) < 0.125  # 5 standard errors
    sides = np.array([(bottom - top, right - left) for top, left, bottom, right in cut])
    shares = sides.prod(-1) / 120_000
    assert 0.24 < shares.min() < 0.3
    assert 0.45 < shares.max() < 0.51
    stretch = sides[:, 0] / sides[:, 1] / 0.75
    assert 0.74 < stretch.min() < 0.8
    assert 1.25 < stretch.max() < 1.35
    corners = np.array(cut)
    assert corners[:, :2].min() == 0
    assert (corners[:, 2:].max(0) >= (298, 398)).all()
    assert abs(np.mean([view.flip_vertical for view in views]) - 0.25) < 0.11
    turns = np.bincount([view.turns for view in views], minlength=4) / 400
    assert np.abs(turns - 0.25).max() < 0.11


def test_a_crop_of_the_whole_area_is_the_whole_image():
    config = InputConfig(crop=1.0, crop_area=(1.0, 1.0))
    assert {choose_view((300, 400), NONE, config, 0, sample).window for sample in range(9)} == {(0, 0, 300, 400)}


def test_a_factor_above_1_cuts_a_part_out_and_one_below_makes_the_whole_smaller():
    config = InputConfig(large_scale_jitter=(0.1, 2.0))
    views = [choose_view((300, 400), NONE, config, 1, sample) for sample in range(300)]
    smaller = np.array([view.shrink for view in views if view.shrink < 1.0])
    assert all(view.window == (0, 0, 300, 400) for view in views if view.shrink < 1.0)
    assert abs(len(smaller) / 300 - 0.9 / 1.9) < 0.15
    assert smaller.min() < 0.15
    heights = np.array([view.window[2] - view.window[0] for view in views if view.shrink == 1.0])
    assert 150 <= heights.min() < 160
    assert heights.max() > 290
    assert all(view.resized((60, 80))[0] == 60 for view in views if view.shrink == 1.0)


def test_a_crop_with_an_object_is_preferred_and_where_none_has_one_the_whole_image_stays():
    config = InputConfig(crop=1.0, crop_area=(0.05, 0.05), crop_keep=0.9)
    box = boxes_of((135, 135, 165, 165))
    with_object = 0
    for sample in range(100):
        window = choose_view((300, 300), box, config, 0, sample).window
        kept = cut_boxes(box, np.array([False]), window, 0.9)[1][0]
        assert kept
        with_object += window != (0, 0, 300, 300)
    assert 3 < with_object < 80  # 67 of 300 pixels must hold these 30: often ten tries are not enough
    large = boxes_of((0, 0, 300, 300))
    assert all(choose_view((300, 300), large, config, 0, sample).window == (0, 0, 300, 300) for sample in range(20))
    assert all(choose_view((300, 300), NONE, config, 0, sample).window != (0, 0, 300, 300) for sample in range(20))


@dataclasses.dataclass
class OneImage:
    record: Record
    name: str = "one"
    class_names: tuple[str, ...] = ("a", "b")
    category_ids: tuple[int, ...] = (1, 2)
    max_boxes: int = 2

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.record


def marked_source():
    """Returns an image of 150 x 240 pixels with one green and one blue block, the green one labelled 0, the blue one 1."""
    image = np.full((150, 240, 3), 90, np.uint8)
    image[20:70, 30:110] = (0, 255, 0)
    image[90:140, 150:230] = (0, 0, 255)
    boxes = boxes_of((20, 30, 70, 110), (90, 150, 140, 230))
    return OneImage(
        Record(
            image,
            0,
            150,
            240,
            boxes,
            np.array([0, 1], np.int32),
            np.zeros(2, bool),
            np.full(2, 4000.0, np.float32),
            "marked",
        )
    )


MOVES = {
    "plain": {},
    "crop": {"crop": 1.0},
    "large": {"large_scale_jitter": (0.3, 2.0)},
    "vertical": {"flip_vertical": 1.0},
    "turn": {"turn": 1.0},
    "all": {"crop": 0.5, "large_scale_jitter": (0.3, 2.0), "flip_vertical": 0.5, "turn": 0.75, "flip": 0.5},
}


@pytest.mark.parametrize("move", MOVES)
def test_pixels_under_a_box_stay_under_it(move):
    source = marked_source()
    config = Config(data="one", input=dataclasses.replace(INPUT, **MOVES[move]))
    load = training_sample(source, config)
    canvas, boxes_seen = np.array([64, 96]), 0
    for sample in range(40):
        image, size, boxes, labels, crowd = load(0, sample, bool(sample % 2 and config.input.flip), 1.0, 60, canvas)
        height, width = size.tolist()
        assert image.shape == (64, 96, 3)
        assert not crowd.any()
        assert not image[height:].any()
        assert not image[:, width:].any()
        assert image[:height, :width].any(-1).all()
        assert boxes.min() >= 0
        assert (boxes <= (height, width, height, width)).all()
        for (y1, x1, y2, x2), label in zip(boxes, labels, strict=True):
            if label < 0:
                continue
            boxes_seen += 1
            own = image[:, :, 1 + label].astype(int) - image[:, :, 2 - label]
            inner = own[int(np.ceil(y1)) + 1 : int(y2) - 1, int(np.ceil(x1)) + 1 : int(x2) - 1]
            assert inner.size == 0 or inner.min() > 200  # all of the block's colour, but for a border that was blended
            outer = own.copy()
            outer[max(int(y1) - 2, 0) : int(np.ceil(y2)) + 2, max(int(x1) - 2, 0) : int(np.ceil(x2)) + 2] = 0
            assert outer.max() < 60  # and nothing of it elsewhere
    assert boxes_seen >= 40


def test_objects_of_which_too_little_is_seen_have_no_box_and_crowd_regions_are_cut():
    source = marked_source()
    source.record = dataclasses.replace(source.record, crowd=np.array([False, True]))
    config = Config(data="one", input=dataclasses.replace(INPUT, crop=1.0, crop_area=(0.3, 0.5), crop_keep=0.5))
    load = training_sample(source, config)
    kinds = set()
    for sample in range(60):
        _, _, boxes, labels, crowd = load(0, sample, False, 1.0, 60, np.array([64, 96]))
        window = choose_view((150, 240), source.record.boxes[:1], config.input, config.seed, sample).window
        cut, kept = cut_boxes(source.record.boxes, source.record.crowd, window, 0.5)
        assert kept[0]  # the crop was chosen for it
        kinds.add(bool(kept[1]))
        assert labels.tolist() == ([0, 1] if kept[1] else [0, -1])
        assert crowd.tolist() == [False, bool(kept[1])]
        scale = 60 / (window[2] - window[0])
        assert (
            boxes[0].tolist() == pytest.approx((cut[0] * scale).tolist(), abs=1.5)
            or scale * (window[3] - window[1]) > 96
        )
    assert kinds == {True, False}


def test_the_plain_sample_does_not_depend_on_its_number():
    load = training_sample(marked_source(), Config(data="one", input=INPUT))
    first, second = (load(0, sample, False, 1.0, 60, np.array([64, 96])) for sample in (0, 9))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_each_use_of_chance_has_its_own_numbers():
    draws = {
        random_numbers(seed, sample, use).random() for seed in (0, 1) for sample in (0, 1) for use in ("crop", "turn")
    }
    assert len(draws) == 8
    assert random_numbers(2**31 - 1, 2**40, "turn").random() == random_numbers(2**31 - 1, 2**40, "turn").random()
