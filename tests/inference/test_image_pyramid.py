import dataclasses
import itertools
import types

import numpy as np
import pytest
import tensorflow as tf

import kfpn.inference.timed_passes
from kfpn.config.model import ModelConfig
from kfpn.config.presets import preset
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record
from kfpn.evaluation.detect import detect_image, detect_source, evaluate_source
from kfpn.evaluation.segmentations import parts_of
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.inference.image_pyramid import ImagePyramid, merge_detections
from kfpn.inference.timed_passes import TimedDetector
from kfpn.modeling.detector import inference_model
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny

CONFIG = dataclasses.replace(preset("shapes"), batch_size=2)  # 128 a side
KEYS = ("boxes", "scores", "labels")
# A bright rectangle on black, y1 x1 y2 x2. It lies at the upper left, so that the mirrored rectangle lies elsewhere.
BRIGHT = (10, 20, 50, 60)


def bright_image(height, width, box=BRIGHT):
    image = np.zeros((height, width, 3), np.uint8)
    image[box[0] : box[2], box[1] : box[3]] = 250
    return image


def record(image, image_id, box=BRIGHT):
    return Record(
        image=image,
        image_id=image_id,
        height=image.shape[0],
        width=image.shape[1],
        boxes=np.array([box], np.float32),
        labels=np.zeros(1, np.int32),
        crowd=np.zeros(1, bool),
        areas=np.array([(box[2] - box[0]) * (box[3] - box[1])], np.float32),
        name=f"image {image_id}",
    )


def source():
    """Returns three images of different sizes, each with the bright rectangle."""
    sizes = ((96, 128), (64, 64), (128, 96))
    records = [record(bright_image(*size), 100 + index) for index, size in enumerate(sizes)]
    return IterableSource(records, class_names=["cat"])


def detections_of(boxes, scores, labels):
    """Returns the detections of one pass."""
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "labels": np.array(labels, np.int32),
    }


def edges(bright):
    """Returns the first index that is True, and the index after the last one, of each row of (B, n) bool."""
    first = tf.argmax(tf.cast(bright, tf.int32), axis=1)
    last = tf.argmax(tf.cast(tf.reverse(bright, [1]), tf.int32), axis=1)
    return tf.cast(first, tf.float32), tf.cast(bright.shape[1] - last, tf.float32)


def bright_spot(inputs):
    """Stands in for a detector: detects the bright rectangle, with a score of .9."""
    bright = tf.convert_to_tensor(inputs["images"])[..., 0] > 128
    (top, bottom), (left, right) = edges(tf.reduce_any(bright, 2)), edges(tf.reduce_any(bright, 1))
    rows = tf.shape(bright)[0]
    return {
        "boxes": tf.stack([top, left, bottom, right], axis=1)[:, None],
        "scores": tf.fill([rows, 1], 0.9),
        "labels": tf.zeros([rows, 1], tf.int32),
        "num_detections": tf.ones([rows], tf.int32),
    }


def always(*box):
    """Stands in for a detector that detects the same box in every image."""

    def detector(inputs):
        rows = tf.shape(inputs["images"])[0]
        return {
            "boxes": tf.tile(tf.constant([[box]], tf.float32), [rows, 1, 1]),
            "scores": tf.fill([rows, 1], 0.9),
            "labels": tf.zeros([rows, 1], tf.int32),
            "num_detections": tf.ones([rows], tf.int32),
        }

    return detector


class Counting:
    """Stands in for a compiled detector, and counts its calls."""

    get_concrete_function = None

    def __init__(self):
        self.calls = []

    def __call__(self, inputs):
        self.calls.append(tuple(inputs["images"].shape))
        return bright_spot(inputs)


@pytest.fixture(scope="module")
def detector():
    """Returns a real, compiled detector with random weights, and the configuration of its run."""
    model = tiny.config()
    submodels = build_submodels(model)
    tiny.shake(submodels.features)
    return detect_function(inference_model(submodels, model, padded=True)), dataclasses.replace(CONFIG, model=model)


# ------------------------------------------------------------------------------------------------ mirroring


def test_boxes_of_a_mirrored_image_are_mirrored_back_in_its_width_without_padding():
    mirrored = TimedDetector(detect_function(always(10, 20, 50, 70)), CONFIG, mirrored=True)
    inputs = {
        "images": np.zeros((2, 128, 192, 3), np.uint8),
        "image_sizes": np.array([[128, 180], [100, 90]], np.int32),
    }
    # x1 and x2 are 180 - 70 and 180 - 20, then 90 - 70 and 90 - 20. The padding up to 192 does not count.
    np.testing.assert_array_equal(mirrored(inputs)["boxes"], [[[10, 110, 50, 160]], [[10, 20, 50, 70]]])


def test_the_mirrored_image_has_its_padding_on_the_right():
    seen = []

    def detector(inputs):
        seen.append(np.asarray(inputs["images"]))
        return bright_spot(inputs)

    detector.get_concrete_function = None
    images = np.zeros((2, 96, 128, 3), np.uint8)
    images[0, :80, :100], images[1] = bright_image(80, 100), bright_image(96, 128)
    outputs = TimedDetector(detector, CONFIG, mirrored=True)(
        {"images": images, "image_sizes": np.array([[80, 100], [96, 128]])}
    )
    np.testing.assert_array_equal(seen[0][0, :80, :100], bright_image(80, 100)[:, ::-1])
    assert not seen[0][0, :, 100:].any()
    np.testing.assert_array_equal(seen[0][1], bright_image(96, 128)[:, ::-1])
    np.testing.assert_array_equal(outputs["boxes"], [[BRIGHT], [BRIGHT]])


def test_an_object_detected_in_the_mirrored_image_has_its_box_in_the_image():
    image = bright_image(96, 128)
    (usual,) = detect_image(bright_spot, image, CONFIG.input)["boxes"]
    only_mirrored = ImagePyramid(bright_spot, CONFIG, flip=True).passes[1]
    np.testing.assert_allclose(detect_image(only_mirrored, image, CONFIG.input)["boxes"], [usual])


def test_a_detector_of_one_side_detects_both_sides_with_flip():
    image = np.zeros((128, 128, 3), np.uint8)
    boxes = ImagePyramid(always(10, 20, 50, 50), CONFIG, flip=True).detect_image(image)["boxes"]
    np.testing.assert_array_equal(boxes, [[10, 20, 50, 50], [10, 78, 50, 108]])


def test_with_flip_a_mirrored_image_has_mirrored_detections(detector):
    model, config = detector
    image = tiny.image(96, 128)
    pyramid = ImagePyramid(model, config, flip=True)
    usual, mirrored = pyramid.detect_image(image), pyramid.detect_image(np.ascontiguousarray(image[:, ::-1]))
    assert len(usual["boxes"]) == config.model.max_detections
    mirrored_back = mirrored["boxes"][:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 128, 0, 128]
    np.testing.assert_allclose(usual["boxes"], mirrored_back, atol=1e-2)
    np.testing.assert_allclose(usual["scores"], mirrored["scores"], atol=1e-5)
    np.testing.assert_array_equal(usual["labels"], mirrored["labels"])


# -------------------------------------------------------------------------------------------------- merging


def test_nms_of_two_passes_keeps_the_best_box_of_each_class():
    first = detections_of([[0, 0, 10, 10], [40, 40, 50, 50]], [0.6, 0.1], [0, 2])
    second = detections_of([[0, 0, 10, 11], [20, 20, 30, 30], [0, 0, 10, 10]], [0.8, 0.7, 0.5], [0, 0, 1])
    merged = merge_detections([first, second], ModelConfig(nms_iou=0.5, score_threshold=0.05))
    # The first box is suppressed: it has a lower score than [0, 0, 10, 11], and an IoU of 10 / 11 with it.
    np.testing.assert_array_equal(merged["boxes"], [[0, 0, 10, 11], [20, 20, 30, 30], [0, 0, 10, 10], [40, 40, 50, 50]])
    np.testing.assert_allclose(merged["scores"], [0.8, 0.7, 0.5, 0.1])
    assert merged["labels"].tolist() == [0, 0, 1, 2]
    assert [merged[key].dtype for key in KEYS] == [np.float32, np.float32, np.int32]


def test_of_two_equal_scores_the_one_of_the_earlier_pass_is_kept():
    passes = [detections_of([[0, 0, 10, 10]], [0.5], [0]), detections_of([[0, 0, 10, 11]], [0.5], [0])]
    for order in (passes, passes[::-1]):
        np.testing.assert_array_equal(merge_detections(order, ModelConfig())["boxes"], order[0]["boxes"])


def test_an_iou_equal_to_the_threshold_suppresses_nothing():
    passes = [detections_of([[0, 0, 10, 10]], [0.9], [0]), detections_of([[0, 0, 10, 20]], [0.8], [0])]
    assert len(merge_detections(passes, ModelConfig(nms_iou=0.5))["boxes"]) == 2
    assert len(merge_detections(passes, ModelConfig(nms_iou=0.49))["boxes"]) == 1


def test_detections_at_or_below_the_score_threshold_are_dropped_and_do_not_count():
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    passes = [detections_of(boxes, [0.9, 0.3, 0.2], [0, 0, 0]), detections_of([[60, 0, 70, 10]], [0.25], [1])]
    merged = merge_detections(passes, ModelConfig(score_threshold=0.25))
    np.testing.assert_allclose(merged["scores"], [0.9, 0.3])
    assert merge_detections(passes, ModelConfig(max_detections=3))["scores"] == pytest.approx([0.9, 0.3, 0.25])


def test_passes_without_detections_are_merged_to_no_detections():
    nothing = detections_of([], [], [])
    for passes in ([nothing], [nothing, nothing]):
        merged = merge_detections(passes, ModelConfig())
        assert [merged[key].shape for key in KEYS] == [(0, 4), (0,), (0,)]
    one = detections_of([[0, 0, 10, 10]], [0.5], [0])
    np.testing.assert_array_equal(merge_detections([nothing, one], ModelConfig())["boxes"], one["boxes"])


def test_a_single_pass_is_not_suppressed_again():
    # The network's own NMS compared the boxes in the resized image. In pixels of the original image, an IoU may be a little
    # larger.
    one = detections_of([[0, 0, 10, 10], [0, 0, 10, 11]], [0.9, 0.8], [0, 0])
    np.testing.assert_array_equal(merge_detections([one], ModelConfig())["boxes"], one["boxes"])


def test_merging_is_greedy_nms_of_all_boxes():
    rng = np.random.default_rng(0)
    passes = []
    for _ in range(4):
        corners = rng.uniform(0, 60, (50, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (50, 2))], 1)
        passes.append(detections_of(boxes, -np.sort(-rng.integers(1, 20, 50) / 20), rng.integers(0, 3, 50)))
    boxes, scores, labels = (np.concatenate([one[key] for one in passes]) for key in KEYS)

    def iou(a, b):
        sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
        return sides.prod() / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - sides.prod())

    kept = []
    for i in sorted(range(200), key=lambda i: -scores[i]):  # stable: equal scores keep their order
        if all(labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= 0.5 for j in kept):
            kept.append(i)
    merged = merge_detections(passes, ModelConfig(nms_iou=0.5, max_detections=60))
    assert len(kept) > 60
    for key, values in zip(KEYS, (boxes, scores, labels), strict=True):
        np.testing.assert_array_equal(merged[key], values[kept[:60]])


# ---------------------------------------------------------------------------------------------------- sizes


def test_one_pass_at_the_size_of_the_run_has_the_usual_detections(detector):
    model, config = detector
    # The images are resized to 96 x 128. They are detected one at a time, so that both ways run the same graph.
    images = IterableSource([record(tiny.image(75, 100, seed), seed) for seed in range(3)], class_names=["cat"])
    for scales in (None, (128,)):
        pyramid = ImagePyramid(model, config, scales)
        usual = detect_source(model, SourcePass(images, config, 1, progress=False))
        assert sum(len(row["boxes"]) for row in usual) > 30
        for row, own in zip(usual, pyramid.detect_source(images, 1, progress=False), strict=True):
            assert row["image_id"] == own["image_id"]
            for key in KEYS:
                np.testing.assert_array_equal(row[key], own[key])
        image = images[0].image
        usual, own = detect_image(model, image, config.input, 7), pyramid.detect_image(image, 7)
        assert own["image_id"] == 7
        for key in KEYS:
            np.testing.assert_array_equal(usual[key], own[key])


def test_every_size_and_its_mirrored_images_are_detected_in_batches():
    model = Counting()
    square = IterableSource([record(bright_image(128, 128), i) for i in range(4)], class_names=["cat"])
    ImagePyramid(model, CONFIG, (128, 160), flip=True).detect_source(square, progress=False)
    # There are two batches of two images. The first batch runs twice, because the first call is not timed.
    assert model.calls == [(2, side, side, 3) for side in (128, 160) for _ in range(2 * 3)]


def test_an_object_that_all_passes_detect_is_one_detection_in_pixels_of_the_original():
    pyramid = ImagePyramid(bright_spot, CONFIG, (96, 128, 256), flip=True)
    detections = pyramid.detect_source(source(), progress=False)
    assert sorted(row["image_id"] for row in detections) == [100, 101, 102]
    for row in detections:
        np.testing.assert_allclose(row["boxes"], [BRIGHT], atol=1.5)  # a pixel of the smallest size
        np.testing.assert_allclose(row["scores"], [0.9])
        assert row["labels"].tolist() == [0]


def test_one_image_alone_has_the_merged_detections_that_it_has_in_its_source():
    pyramid = ImagePyramid(bright_spot, CONFIG, (96, 128), flip=True)
    images = source()
    for expected in pyramid.detect_source(images, progress=False):
        own = pyramid.detect_image(images[expected["image_id"] - 100].image, expected["image_id"])
        for key in ("image_id", *KEYS):
            np.testing.assert_array_equal(own[key], expected[key])


def test_the_figures_are_those_of_the_merged_detections():
    pyramid = ImagePyramid(bright_spot, CONFIG, (128, 256), flip=True)
    metrics, detections = pyramid.evaluate_source(source(), ["cat"], progress=False)
    assert metrics["AP50"] == pytest.approx(1.0)
    assert list(metrics) == list(evaluate_source(bright_spot, SourcePass(source(), CONFIG, progress=False), ["cat"])[0])
    assert len(detections) == 3


def test_wrong_arguments_are_refused_before_the_detector_is_called():
    with pytest.raises(ValueError, match="scales must differ from each other, got 64,64"):
        ImagePyramid(bright_spot, CONFIG, (64, 64))
    model = Counting()
    with pytest.raises(ValueError, match="classes must be among those of the model"):
        ImagePyramid(model, CONFIG, flip=True).evaluate_source(source(), ["dog"], progress=False)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        ImagePyramid(model, CONFIG, flip=True).detect_source(source(), 0, progress=False)
    assert not model.calls


# ----------------------------------------------------------------------------------------------------- cost


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock by one that goes on by one second each time it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(
        kfpn.inference.timed_passes, "time", types.SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    )


def inputs(side):
    return {"images": np.zeros((2, side, side, 3), np.uint8), "image_sizes": np.full((2, 2), side, np.int32)}


def test_the_first_call_of_each_size_does_not_count(clock):
    model = Counting()
    timed = TimedDetector(model, CONFIG)
    timed(inputs(64))  # calls the model twice: the first call compiles
    assert (timed.seconds, timed.images, len(model.calls)) == (1.0, 2, 2)
    timed(inputs(64))
    assert (timed.seconds, timed.images, len(model.calls)) == (2.0, 4, 3)
    timed(inputs(96))  # compiles, and is not repeated because there is a time already
    assert (timed.seconds, timed.images, len(model.calls)) == (2.0, 4, 4)


def test_the_cost_is_the_time_of_all_passes_and_of_merging_divided_by_that_of_one_pass_at_the_runs_size(clock):
    pyramid = ImagePyramid(Counting(), CONFIG, (64, 128), flip=True)
    image = bright_image(128, 128)
    assert pyramid.cost()["seconds_per_image"] is pyramid.cost()["times_one_pass"] is None
    assert pyramid.cost_line() == "image pyramid: 4 passes (64, 128; each mirrored too), no image, no time"
    pyramid.detect_image(image)
    # By this clock each pass of one image takes a second, and merging takes a second.
    assert pyramid.cost() == {
        "scales": [64, 128],
        "flip": True,
        "passes": 4,
        "seconds_per_image": 5.0,
        "times_one_pass": 5.0,
    }
    words = "5 s an image, 5.0 x one pass at 128 (without compilation and reading files)"
    assert pyramid.cost_line() == f"image pyramid: 4 passes (64, 128; each mirrored too), {words}"


@pytest.mark.parametrize("scales", [(64,), (128,)])
def test_the_cost_is_compared_with_a_pass_at_the_runs_size_even_if_scales_leave_it_out(clock, scales):
    for detect in (
        lambda pyramid: pyramid.detect_image(bright_image(128, 128)),
        lambda pyramid: pyramid.detect_source(source(), 1, False),
    ):
        pyramid = ImagePyramid(Counting(), CONFIG, scales)
        detect(pyramid)
        assert pyramid.cost()["times_one_pass"] == 2.0  # one pass and the merging
        assert pyramid.cost_line().startswith(
            f"image pyramid: 1 pass ({scales[0]}), 2 s an image, 2.0 x one pass at 128"
        )


# ---------------------------------------------------------------------------------------------------- masks


def left_half(inputs):
    """Stands in for a detector with masks: detects the bright rectangle, of which the left half is the object."""
    outputs = bright_spot(inputs)
    columns = tf.tile(tf.cast(tf.range(28) < 14, tf.float32)[None], [28, 1])
    return outputs | {"masks": tf.zeros_like(outputs["scores"])[..., None, None] + columns}


def test_masks_of_a_mirrored_image_are_mirrored_back_and_averaged():
    image = bright_image(96, 128)
    (mirrored,) = detect_image(ImagePyramid(left_half, CONFIG, flip=True).passes[1], image, CONFIG.input)["masks"]
    assert not mirrored[:, :14].any()
    assert mirrored[:, 14:].all()
    merged = ImagePyramid(left_half, CONFIG, flip=True).detect_image(image)
    assert len(merged["boxes"]) == 1
    np.testing.assert_allclose(merged["masks"], 0.5, atol=0.01)


def test_masks_of_several_sizes_are_those_of_one_pass_where_all_agree():
    one, pyramid = (
        detect_source(left_half, SourcePass(source(), CONFIG, progress=False)),
        ImagePyramid(left_half, CONFIG, (128, 192)),
    )
    several = pyramid.detect_source(source(), progress=False)
    assert len(several) == 3
    by_image = {row["image_id"]: row for row in one}
    for row in several:
        expected, merged = (parts_of(rows)(0) for rows in (by_image[row["image_id"]], row))
        assert merged.pixels.all()
        edges = [[side.start, side.stop] for side in merged.window]
        np.testing.assert_allclose(edges, [[side.start, side.stop] for side in expected.window], atol=1)
