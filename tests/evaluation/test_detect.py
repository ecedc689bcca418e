import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.data.record import Record
from kfpn.evaluation.detect import (
    detect_image,
    detect_source,
    detect_unpadded,
    evaluate_source,
    source_labels,
    to_original,
)
from kfpn.evaluation.segmentations import parts_of
from kfpn.evaluation.source_pass import SourcePass, detect_function

CONFIG = dataclasses.replace(preset("shapes"), batch_size=2)
SIZES = ((96, 128), (64, 64), (128, 96))  # the preset resizes to 128 a side: 96 x 128, 128 x 128, 128 x 96


class Source:
    """Has three images of different sizes, each with one object in its lower right quarter."""

    name = "three"
    class_names = ("cat",)
    category_ids = (18,)
    max_boxes = 1
    sizes = np.array(SIZES, np.int32)

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        height, width = SIZES[index]
        return Record(
            image=np.full((height, width, 3), 50, np.uint8),
            image_id=100 + index,
            height=height,
            width=width,
            boxes=np.array([[height / 2, width / 2, height, width]], np.float32),
            labels=np.zeros(1, np.int32),
            crowd=np.zeros(1, bool),
            areas=np.array([height * width / 4], np.float32),
            name=f"image {index}",
        )


class Empty(Source):
    def __len__(self):
        return 0


def quiet(source, batch_size=None):
    """Returns a pass over a source that shows no progress bar."""
    return SourcePass(source, CONFIG, batch_size, progress=False)


def lower_right(inputs):
    """Stands in for a detector: detects the lower right quarter of the image without its padding; the second row is empty."""
    sizes = tf.cast(inputs["image_sizes"], tf.float32)
    quarter = tf.concat([sizes / 2, sizes], axis=1)
    return {
        "boxes": tf.stack([quarter, tf.zeros_like(quarter)], axis=1),
        "scores": tf.tile(tf.constant([[0.9, 0.0]]), [tf.shape(sizes)[0], 1]),
        "labels": tf.tile(tf.constant([[0, -1]]), [tf.shape(sizes)[0], 1]),
        "num_detections": tf.ones(tf.shape(sizes)[:1], tf.int32),
    }


def test_boxes_are_scaled_on_each_axis_and_clipped():
    boxes = to_original(np.array([[10, 20, 50, 100], [-5, 0, 101, 200]]), np.array([100, 200]), np.array([50, 400]))
    np.testing.assert_allclose(boxes, [[5, 40, 25, 200], [0, 0, 50, 400]])
    assert boxes.dtype == np.float32
    assert to_original(np.zeros((0, 4)), np.array([1, 1]), np.array([2, 2])).shape == (0, 4)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_image_is_detected_once_with_any_batch_size(batch_size):
    detections = detect_source(lower_right, quiet(Source(), batch_size))
    assert sorted(row["image_id"] for row in detections) == [100, 101, 102]
    for row in detections:
        height, width = SIZES[row["image_id"] - 100]
        np.testing.assert_allclose(row["boxes"], [[height / 2, width / 2, height, width]], atol=1e-4)
        assert row["labels"].tolist() == [0]
        assert row["scores"] == pytest.approx([0.9])


def test_the_figures_of_a_perfect_detector_are_one():
    metrics, detections = evaluate_source(lower_right, quiet(Source()), ["cat"])
    assert metrics["AP"] == pytest.approx(1.0)
    assert len(detections) == 3


def test_one_image_alone_has_the_detections_that_it_has_in_its_source():
    record = Source()[0]
    (expected,) = (row for row in detect_source(lower_right, quiet(Source())) if row["image_id"] == 100)
    detections = detect_image(lower_right, record.image, CONFIG.input, image_id=100)
    assert detections["image_id"] == 100
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(detections[name], expected[name], atol=1e-4)


def test_a_compiled_function_is_not_compiled_again():
    compiled = detect_function(lower_right)
    assert detect_function(compiled) is compiled


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"three: classes must be among those of the model \(cow, dog\), got cat$"):
        evaluate_source(lower_right, quiet(Source()), ["cow", "dog"])


def test_a_name_that_two_labels_of_the_model_have_is_refused():
    with pytest.raises(ValueError, match=r"model \(cat, dog, cat\), got cat$"):
        evaluate_source(lower_right, quiet(Source()), ["cat", "dog", "cat"])


def test_an_error_lists_at_most_twenty_classes():
    with pytest.raises(ValueError, match=r"\(a0, a1, .*, a19 and 5 more\), got cat$") as error:
        source_labels(Source(), [f"a{i}" for i in range(25)])
    assert "a20" not in str(error.value)


class WithUnused(Source):
    """Has the same three images, of which none has the second class."""

    class_names = ("cat", "bird")
    category_ids = (18, 19)


def test_a_class_without_objects_may_be_unknown_to_the_model():
    assert source_labels(WithUnused(), ("cat",)).tolist() == [0]
    with pytest.raises(ValueError, match=r"got cat; make these names the same, .*: 'cat' and 'Cat'$"):
        source_labels(WithUnused(), ("Cat",))


class TwoClasses(Source):
    """Has the same three images and two classes. All objects are of the second one."""

    class_names = ("other", "cat")
    category_ids = (3, 18)

    def __getitem__(self, index):
        return dataclasses.replace(super().__getitem__(index), labels=np.ones(1, np.int32))


def test_labels_of_a_model_become_those_of_the_source_by_name():
    assert source_labels(TwoClasses(), ("other", "cat")) is None
    labels = source_labels(TwoClasses(), ("cat", "N/A", "dog", "other", "N/A"))
    assert labels.tolist() == [1, -1, -1, 0, -1]
    assert labels.dtype == np.int32


def detects(*labels):
    """Stands in for a detector that detects the lower right quarter once for each label, with a lower score each time."""

    def detector(inputs):
        detections = lower_right(inputs)
        rows, count = tf.shape(detections["boxes"])[0], len(labels)
        scores = tf.constant([[0.9 - 0.1 * i for i in range(count)]], tf.float32)
        return {
            "boxes": tf.repeat(detections["boxes"][:, :1], count, axis=1),
            "scores": tf.tile(scores, [rows, 1]),
            "labels": tf.tile(tf.constant([labels]), [rows, 1]),
            "num_detections": tf.fill([rows], count),
        }

    return detector


def test_a_model_that_knows_more_classes_is_measured_on_those_of_the_source():
    names = ("dog", "cat", "other", "N/A")
    metrics, detections = evaluate_source(detects(0, 1, 3), quiet(TwoClasses()), names)
    assert metrics["per_class"]["cat"] == pytest.approx(1.0)
    assert len(detections) == 3
    for row in detections:
        # The dog and the unused label are left out. The cat stays, with its own score and box.
        height, width = SIZES[row["image_id"] - 100]
        assert row["labels"].tolist() == [1]
        assert row["scores"] == pytest.approx([0.8])
        np.testing.assert_allclose(row["boxes"], [[height / 2, width / 2, height, width]], atol=1e-4)


def test_images_with_detections_of_other_classes_only_stay_without_detections():
    metrics, detections = evaluate_source(detects(0, 0), quiet(TwoClasses()), ("dog", "cat", "other"))
    assert metrics["AP"] == pytest.approx(0.0)
    assert [(len(row["boxes"]), len(row["scores"]), len(row["labels"])) for row in detections] == [(0, 0, 0)] * 3
    assert {row["image_id"] for row in detections} == {100, 101, 102}


def test_a_source_without_images_and_a_batch_size_of_zero_are_refused():
    with pytest.raises(ValueError, match="three: there must be images to detect on"):
        detect_source(lower_right, quiet(Empty()))
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        detect_source(lower_right, quiet(Source(), 0))


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")])
def test_memory_that_runs_out_is_one_line_with_the_images(error):
    def model(inputs):
        raise error

    model.get_concrete_function = None  # as a compiled function, so that the error comes as it is
    with pytest.raises(
        ValueError, match=r"enough for 1 image of \d+ x \d+ pixels at once, got no more of it: use smaller images"
    ):
        detect_source(model, quiet(Source()))
    with pytest.raises(ValueError, match=r"enough for 1 image of \d+ x \d+ pixels at once, .*--scales 480"):
        detect_image(model, np.zeros((50, 60, 3), np.uint8), CONFIG.input)
    with pytest.raises(ValueError, match=r"enough for 1 image of \d+ x \d+ pixels at once"):
        detect_unpadded(model, np.zeros((50, 60, 3), np.uint8), CONFIG.input)


def with_masks(detector, filled):
    """Stands in for a detector with masks: the first share `filled` of each box's rows belongs to the object."""

    def detect(inputs):
        outputs = detector(inputs)
        rows = tf.tile(tf.cast(tf.range(28) < int(28 * filled), tf.float32)[:, None], [1, 28])
        return outputs | {"masks": tf.zeros_like(outputs["scores"])[..., None, None] + rows}

    return detect


def test_a_detector_with_masks_gives_them_for_an_image_and_their_run_lengths_for_a_source():
    detector = with_masks(lower_right, 0.5)
    one = detect_image(detector, Source()[0].image, CONFIG.input)
    assert one["masks"].shape == (1, 28, 28)
    for row in detect_source(detector, quiet(Source())):
        assert row.keys() == {"image_id", "boxes", "scores", "labels", "segmentations"}
        height, width = SIZES[row["image_id"] - 100]
        (segmentation,) = row["segmentations"]
        assert segmentation["size"] == [height, width]
        window, pixels = parts_of(row)(0)
        # The upper half of the lower right quarter.
        assert (window[0].start, window[1].start, window[1].stop) == (height // 2, width // 2, width)
        assert abs(window[0].stop - height * 3 // 4) <= 1
        assert pixels.all()


def test_masks_of_classes_that_the_source_lacks_are_left_out_with_their_boxes():
    figures, detections = evaluate_source(
        with_masks(detects(0, 1, 3), 1.0), quiet(TwoClasses()), ("dog", "cat", "other", "N/A")
    )
    assert [len(row["segmentations"]) for row in detections] == [1, 1, 1]
    assert figures["AP"] == pytest.approx(1.0)
    assert figures["mask_AP"] is None  # the source has no masks
