import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, InputConfig, SamplingConfig
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.pipeline import eval_batches, named_errors, prepare_image, train_batches
from kfpn.data.plan import BatchShare
from kfpn.data.record import Record

LANDSCAPE, PORTRAIT = (40, 80), (80, 40)
PLAIN = InputConfig(short_side=40, long_side=80, flip=0.0, divisor=16)


@dataclasses.dataclass
class MemorySource:
    records: list[Record]
    max_boxes: int = 3
    name: str = "memory"
    class_names: tuple[str, ...] = ("a", "b")
    category_ids: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        self.sizes = np.array([(r.height, r.width) for r in self.records], np.int32).reshape(-1, 2)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]


def _record(index: int, size: tuple[int, int] = LANDSCAPE, boxes=((4, 8, 20, 40),), crowd=None, image=None) -> Record:
    pixels = np.random.default_rng(index).integers(1, 256, (*size, 3), np.uint8)
    count = len(boxes)
    return Record(
        image=pixels if image is None else image,
        image_id=index,
        height=size[0],
        width=size[1],
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(count, dtype=np.int32) % 2,
        crowd=np.zeros(count, bool) if crowd is None else np.array(crowd),
        areas=np.ones(count, np.float32),
        name=f"picture {index}",
    )


def _config(batch_size: int, **fields) -> Config:
    return Config(data="memory", batch_size=batch_size, input=dataclasses.replace(PLAIN, **fields))


def _take(source, config: Config, start: int, count: int) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(train_batches(source, config, start).as_numpy_iterator(), count))


def _mixed() -> MemorySource:
    return MemorySource([_record(i, PORTRAIT if i % 3 == 0 else LANDSCAPE) for i in range(11)])


def test_a_batch_holds_the_records_padded_to_the_canvas_and_to_max_boxes():
    source = MemorySource([_record(0, (36, 80), boxes=[(4, 8, 20, 40), (0, 0, 36, 80)], crowd=[False, True])])
    (batch,) = _take(source, _config(1), 0, 1)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "images": ((1, 48, 80, 3), np.uint8),
        "image_sizes": ((1, 2), np.int32),
        "gt_boxes": ((1, 3, 4), np.float32),
        "gt_labels": ((1, 3), np.int32),
        "gt_crowd": ((1, 3), np.bool_),
        "sample_index": ((1,), np.int64),
        "record_index": ((1,), np.int64),
    }
    assert np.array_equal(batch["images"][0, :36], source[0].image)
    assert not batch["images"][0, 36:].any()
    assert batch["image_sizes"].tolist() == [[36, 80]]
    assert batch["gt_boxes"][0].tolist() == [[4, 8, 20, 40], [0, 0, 36, 80], [0, 0, 0, 0]]
    assert batch["gt_labels"].tolist() == [[0, 1, -1]]
    assert batch["gt_crowd"].tolist() == [[False, True, False]]


def test_boxes_and_image_are_resized_and_mirrored_together():
    source = MemorySource([_record(0, (20, 40), boxes=[(2, 4, 10, 20)])])
    source.records[0].image[:] = 0
    source.records[0].image[2:10, 4:20] = 200
    (batch,) = _take(source, _config(1, flip=1.0), 0, 1)
    assert batch["image_sizes"].tolist() == [[40, 80]]
    # The box becomes twice as large: 4, 8, 20, 40. Mirrored in a width of 80 pixels, its x goes from 40 to 72.
    assert batch["gt_boxes"][0, 0].tolist() == [4, 40, 20, 72]
    assert (batch["images"][0, 5:19, 41:71] == 200).all()
    outside = batch["images"][0].copy()
    outside[3:21, 39:73] = 0
    assert not outside.any()


def test_element_spec_has_fixed_batch_and_box_rows():
    spec = train_batches(_mixed(), _config(4), 0).element_spec
    assert spec["images"].shape.as_list() == [4, None, None, 3]
    assert spec["gt_boxes"].shape.as_list() == [4, 3, 4]
    assert spec["sample_index"].shape.as_list() == [4]


def test_a_source_without_any_box_still_has_a_box_row():
    source = MemorySource([_record(0, boxes=())], max_boxes=0)
    (batch,) = _take(source, _config(1), 0, 1)
    assert batch["gt_labels"].tolist() == [[-1]]
    assert batch["gt_boxes"].tolist() == [[[0, 0, 0, 0]]]


def test_batches_hold_one_aspect_group_and_samples_are_counted():
    source = _mixed()
    for step, batch in enumerate(_take(source, _config(3), 0, 12)):
        assert batch["sample_index"].tolist() == [3 * step, 3 * step + 1, 3 * step + 2]
        assert len({source[i].height for i in batch["record_index"]}) == 1
        assert batch["images"].shape[1:3] == ((80, 48) if source[batch["record_index"][0]].height == 80 else (48, 80))


@pytest.mark.parametrize("start", [1, 7])
def test_a_resumed_run_gets_the_batches_of_an_uninterrupted_one(start):
    config = _config(3, flip=0.5, scale_jitter=(0.5, 1.0))
    whole, resumed = _take(_mixed(), config, 0, 12), _take(_mixed(), config, start, 12 - start)
    for expected, batch in zip(whole[start:], resumed, strict=True):
        assert expected.keys() == batch.keys()
        for key in expected:
            assert np.array_equal(expected[key], batch[key]), key


def test_the_random_scale_depends_on_the_sample_and_not_on_the_batch():
    source = MemorySource([_record(i) for i in range(8)])
    pairs, fours = (
        np.concatenate([b["image_sizes"] for b in _take(source, _config(size, scale_jitter=(0.3, 1.0)), 0, 8 // size)])
        for size in (2, 4)
    )
    assert pairs.tolist() == fours.tolist()
    assert len(np.unique(pairs, axis=0)) > 4


def test_jittered_images_fit_their_canvas():
    config = _config(4, scale_jitter=(0.5, 2.0))
    for batch in _take(_mixed(), config, 0, 8):
        assert (batch["image_sizes"] <= batch["images"].shape[1:3]).all()
        for image, (height, width) in zip(batch["images"], batch["image_sizes"], strict=True):
            assert image[:height, :width].any(-1).all()
            assert not image[height:].any()
            assert not image[:, width:].any()


def test_short_sides_are_drawn_for_each_sample_and_images_fit_their_canvas():
    config = _config(3, train_short_sides=(32, 48, 64), long_side=100, flip=0.5)
    whole = _take(_mixed(), config, 0, 12)
    sides = np.concatenate([batch["image_sizes"].min(-1) for batch in whole])
    # 64 would make the longer side 128: it has 100 at most, so the shorter has 50.
    assert set(sides.tolist()) == {32, 48, 50}
    for batch in whole:
        assert batch["images"].shape[1:3] in ((112, 64), (64, 112))
        assert (batch["image_sizes"] <= batch["images"].shape[1:3]).all()
        for row, index in enumerate(batch["record_index"]):
            box = _mixed()[int(index)].boxes[0] * batch["image_sizes"][row].min() / 40
            height_of_box = batch["gt_boxes"][row, 0, 2] - batch["gt_boxes"][row, 0, 0]
            assert height_of_box == pytest.approx(box[2] - box[0], rel=1e-5)
    for expected, batch in zip(whole[5:], _take(_mixed(), config, 5, 7), strict=True):
        assert all(np.array_equal(expected[key], batch[key]) for key in expected)


def test_workers_that_load_their_own_images_draw_the_same_short_sides_and_leave_out_the_same_images():
    records = [_record(i, boxes=() if i % 4 == 1 else ((4, 8, 20, 40),)) for i in range(12)]
    source = MemorySource(records)
    config = _config(4, train_short_sides=(32, 36, 40), keep_empty=False)
    whole = _take(source, config, 1, 3)
    for worker in (0, 1):
        share = BatchShare(worker, workers=2, replicas=2)
        own = list(itertools.islice(train_batches(source, config, 1, share).as_numpy_iterator(), 3))
        for expected, batch in zip(whole, own, strict=True):
            rows = slice(2 * worker, 2 * worker + 2)
            assert all(np.array_equal(expected[key][rows], batch[key]) for key in expected)


def test_a_single_short_side_is_that_of_every_image():
    plain, single = _config(3, flip=0.5), _config(3, flip=0.5, train_short_sides=(40,))
    for expected, batch in zip(_take(_mixed(), plain, 0, 4), _take(_mixed(), single, 0, 4), strict=True):
        assert all(np.array_equal(expected[key], batch[key]) for key in expected)


def test_evaluation_and_inference_do_not_draw():
    source, config = MemorySource([_record(0)]), _config(1, train_short_sides=(32, 36))
    (batch,) = eval_batches(source, config, 1).as_numpy_iterator()
    assert batch["image_sizes"].tolist() == [[40, 80]]
    assert prepare_image(source[0].image, config.input)[1] == (40, 80)


def test_without_empty_images_only_those_with_a_box_to_learn_from_are_trained_on():
    kinds = ({}, {"boxes": ()}, {"crowd": [True]}, {"boxes": [(4, 8, 20, 40), (0, 0, 9, 9)], "crowd": [True, False]})
    source = MemorySource([_record(i, **kinds[i % 4]) for i in range(12)])
    seen = {
        keep: {int(i) for batch in _take(source, _config(3, keep_empty=keep), 0, 8) for i in batch["record_index"]}
        for keep in (True, False)
    }
    assert seen[True] == set(range(12))
    assert seen[False] == {0, 3, 4, 7, 8, 11}
    indices = [batch["record_index"].tolist() for batch in _take(source, _config(3, keep_empty=False), 0, 2)]
    assert sorted(indices[0] + indices[1]) == [0, 3, 4, 7, 8, 11]  # an epoch is two steps now
    for batch in _take(source, _config(3, keep_empty=False), 0, 2):
        assert all(
            source[int(i)].image[0, 0, 0] == image[0, 0, 0]
            for i, image in zip(batch["record_index"], batch["images"], strict=True)
        )


def test_where_all_images_have_a_box_leaving_out_empty_ones_changes_no_bit():
    for expected, batch in zip(
        _take(_mixed(), _config(3), 0, 4), _take(_mixed(), _config(3, keep_empty=False), 0, 4), strict=True
    ):
        assert all(np.array_equal(expected[key], batch[key]) for key in expected)


def test_training_and_evaluation_resize_as_inference_does():
    source = MemorySource([_record(0, (33, 57))])
    config = _config(1)
    (training,) = _take(source, config, 0, 1)
    (evaluation,) = eval_batches(source, config, 1).as_numpy_iterator()
    resized, (height, width) = prepare_image(source[0].image, config.input)
    assert (height, width) == (40, 69)  # 57 * 40 / 33 = 69.09
    assert resized.shape == (40, 69, 3)
    for batch in (training, evaluation):
        assert batch["image_sizes"].tolist() == [[40, 69]]
        assert np.array_equal(batch["images"][0, :40, :69], resized)


def test_evaluation_takes_every_record_once_and_fills_the_last_batch_with_marked_rows():
    source = _mixed()
    batches = list(eval_batches(source, _config(99), batch_size=4).as_numpy_iterator())
    seen = np.concatenate([b["record_index"] for b in batches])
    assert sorted(seen[seen >= 0]) == list(range(11))
    assert (seen == -1).sum() == 1  # groups of 4 and 7 records, in batches of 4
    for batch in batches:
        canvas = list(batch["images"].shape[1:3])
        for index, image, size, original in zip(
            batch["record_index"], batch["images"], batch["image_sizes"], batch["original_sizes"], strict=True
        ):
            if index < 0:
                assert not image.any()
                assert size.tolist() == original.tolist() == canvas
            else:
                assert original.tolist() == [source[index].height, source[index].width]
                assert np.array_equal(image[: size[0], : size[1]], source[index].image)


def test_with_foreign_padding_each_batch_is_padded_to_its_own_largest_image():
    source = MemorySource([_record(i, (40, width)) for i, width in enumerate((40, 44, 80))])  # one group
    config = _config(1)
    foreign = dataclasses.replace(config, model=dataclasses.replace(config.model, padding="foreign"))
    sides = {
        own.model.padding: [b["images"].shape[1:3] for b in eval_batches(source, own, 2).as_numpy_iterator()]
        for own in (config, foreign)
    }
    assert sides == {"zero": [(48, 80), (48, 80)], "foreign": [(48, 48), (48, 80)]}


def test_evaluation_has_the_same_order_each_time():
    first, second = (
        [b["record_index"].tolist() for b in eval_batches(_mixed(), _config(1), 2).as_numpy_iterator()]
        for _ in range(2)
    )
    assert first == second


def test_an_unreadable_image_is_named():
    source = MemorySource([_record(7, image=b"no image")])
    with pytest.raises(tf.errors.OpError, match="picture 7"):
        _take(source, _config(1), 0, 1)
    with pytest.raises(tf.errors.OpError, match="picture 7"):
        list(eval_batches(source, _config(1), 1))


def test_an_image_with_more_boxes_than_max_boxes_is_refused_by_its_name():
    source = MemorySource([_record(7, boxes=[(0, 0, 5, 5)] * 3)], max_boxes=2)
    with pytest.raises(tf.errors.OpError, match="picture 7: has 3 boxes, more than its source's max_boxes 2"):
        _take(source, _config(1), 0, 1)


def test_bad_arguments_are_refused_at_once():
    with pytest.raises(ValueError, match="at least one record, got none in memory"):
        train_batches(MemorySource([]), _config(1), 0)
    with pytest.raises(ValueError, match="at least one record"):
        eval_batches(MemorySource([]), _config(1), 1)
    with pytest.raises(ValueError, match="start_step must be at least 0, got -1"):
        train_batches(_mixed(), _config(1), -1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        eval_batches(_mixed(), _config(1), 0)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), [[1]]]
)
def test_prepare_image_takes_only_rgb_bytes(image):
    with pytest.raises(ValueError, match="image must"):
        prepare_image(image, PLAIN)


def test_a_mirrored_strategy_can_distribute_the_batches():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    shared = strategy.experimental_distribute_dataset(train_batches(_mixed(), _config(4), 0))
    (plain,) = _take(_mixed(), _config(4), 0, 1)
    batch = next(iter(shared))
    assert np.array_equal(strategy.experimental_local_results(batch["images"])[0], plain["images"])


def test_a_missing_image_is_named_in_one_line():
    source = MemorySource([_record(0), dataclasses.replace(_record(1, image="gone.jpg"), name="gone.jpg")])
    for batches in (eval_batches(source, _config(1), 1), train_batches(source, _config(2))):
        with pytest.raises(ValueError, match=r"^gone\.jpg: does not exist$"):
            list(named_errors(batches))


@pytest.mark.parametrize("rule", ["grid", "polygons"])
def test_batches_have_masks_with_a_mask_head_alone(rule):
    masks = ObjectMasks.of([[[8.0, 4, 40, 4, 40, 20, 8, 20]], None], (36, 80))
    record = dataclasses.replace(_record(0, (36, 80), boxes=[(4, 8, 20, 40), (0, 0, 36, 80)]), masks=masks)
    source = MemorySource([record])
    assert not {"gt_masks", "gt_has_mask"} & set(_take(source, _config(1), 0, 1)[0])
    config = dataclasses.replace(_config(1), model=ModelConfig(mask=True), sampling=SamplingConfig(mask_targets=rule))
    (batch,) = _take(source, config, 0, 1)
    assert batch["gt_has_mask"].tolist() == [[True, False, False]]
    if rule == "grid":
        assert batch["gt_masks"].dtype == np.uint8
        assert batch["gt_masks"].mean((2, 3)).tolist() == [[1.0, 0.0, 0.0]]
    else:
        assert ObjectMasks.from_serialized(batch["gt_outlines"][0]).areas().tolist() == [512, 0, 0]
