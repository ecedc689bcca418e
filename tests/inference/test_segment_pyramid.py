"""Tests segments from several sizes of an image and its mirror images, with a network whose answers are known."""

import dataclasses

import numpy as np
import pytest

import kfpn
from kfpn.config.presets import preset
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.object_masks import ObjectMasks
from kfpn.data.record import Record
from kfpn.evaluation.segment_recall import SEGMENT_RECALLS, evaluate_segments, ranks_of_all
from kfpn.evaluation.source_pass import SourcePass
from kfpn.inference.segment_pyramid import SegmentPyramid
from kfpn.inference.segments import segment_image

BASE = preset("shapes")
CONFIG = dataclasses.replace(
    BASE, batch_size=2, model=dataclasses.replace(BASE.model, task="segments", max_segments=6, segment_side=14)
)
"""Images of 128 a side, and 6 segments of each."""
BOX = (20, 16, 76, 72)
"""The object's y1, x1, y2, x2: left of the middle, so that its mirror image lies elsewhere. Its upper right quarter is missing."""


class BrightObject:
    """Stands in for a segmenter: its best window is the bright object, with the object's mask; a second one lies elsewhere, and a third
    row is empty. Scores are higher in larger images, and equal in an image and its mirror image."""

    get_concrete_function = None

    def __call__(self, inputs):
        rows = [self._segments(np.asarray(image)[..., 0] > 128) for image in inputs["images"]]
        outputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return outputs | {
            "levels": np.tile([[3, 2, 0]], (len(rows), 1)),
            "windows": np.tile([[5, 7, 0]], (len(rows), 1)),
        }

    def _segments(self, bright):
        y, x = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
        box = np.array([y[0], x[0], y[-1] + 1, x[-1] + 1], np.float32) if len(y) else np.zeros(4, np.float32)
        places = [(low + (np.arange(14) + 0.5) / 14 * (high - low)).astype(int) for low, high in (box[::2], box[1::2])]
        mask = bright[np.ix_(*places)].astype(np.float32)
        return {
            "boxes": np.stack([box, np.array([-8, 0, 8, 4], np.float32), np.zeros(4, np.float32)]),
            "scores": np.array([len(bright) / 1000, 0.05, 0.0], np.float32),
            "masks": np.stack([mask, np.ones((14, 14), np.float32), np.zeros((14, 14), np.float32)]),
        }


def object_pixels(height, width):
    pixels = np.zeros((height, width), bool)
    pixels[BOX[0] : BOX[2], BOX[1] : BOX[3]] = True
    pixels[BOX[0] : 48, 44 : BOX[3]] = False
    return pixels


def image_of(height, width):
    return np.repeat(object_pixels(height, width)[..., None] * np.uint8(250), 3, axis=2)


def source():
    """Two images of other widths, which are padded together."""
    records = []
    for number, (height, width) in enumerate(((128, 160), (128, 128))):
        outline = [16, 20, 44, 20, 44, 48, 72, 48, 72, 76, 16, 76]
        masks = ObjectMasks.of([[outline]], (height, width))
        one = np.zeros(1, np.int32)
        records.append(
            Record(
                image_of(height, width),
                number,
                height,
                width,
                np.array([BOX], np.float32),
                one,
                one > 0,
                np.array([2352], np.float32),
                f"image {number}",
                masks=masks,
            )
        )
    return IterableSource(records, class_names=["thing"])


def overlap(segments, row, truth):
    pasted = kfpn.paste_masks(segments.masks[row][None], segments.boxes[row][None], *segments.image_size)[0]
    return (pasted & truth).sum() / (pasted | truth).sum()


def test_segments_of_every_size_and_of_mirror_images_lie_on_the_object():
    pyramid = SegmentPyramid(BrightObject(), CONFIG, (96, 192), flip=True)
    segments = pyramid.segment_image(image_of(128, 128))
    assert segments.scores == pytest.approx([0.192, 0.192, 0.096, 0.096, 0.05, 0.05])
    assert segments.levels.tolist() == [3, 3, 3, 3, 2, 2]
    truth = object_pixels(128, 128)
    assert all(overlap(segments, row, truth) > 0.93 for row in range(4))
    # Of equal scores the earlier pass goes first: the window elsewhere is of 96 pixels, then of its mirror image.
    np.testing.assert_allclose(segments.boxes[4], np.array([-8, 0, 8, 4]) * 128 / 96, rtol=1e-6)
    np.testing.assert_allclose(segments.boxes[5], np.array([-8, 92, 8, 96]) * 128 / 96, rtol=1e-6)
    assert pyramid.cost()["passes"] == 4
    assert pyramid.cost()["seconds_per_image"] > 0


def test_the_runs_own_size_alone_changes_nothing():
    pyramid, image = SegmentPyramid(BrightObject(), CONFIG, (128,)), image_of(100, 90)
    plain, own = segment_image(BrightObject(), image, CONFIG.input), pyramid.segment_image(image)
    for name in ("boxes", "scores", "masks", "levels", "windows"):
        np.testing.assert_array_equal(getattr(own, name), getattr(plain, name))
    measured = SegmentPyramid(BrightObject(), CONFIG, (128,)).evaluate_source(source(), progress=False)
    assert measured == evaluate_segments(BrightObject(), SourcePass(source(), CONFIG, progress=False))
    assert list(measured) == list(SEGMENT_RECALLS)


def test_evaluation_counts_the_best_of_all_passes():
    model = dataclasses.replace(CONFIG.model, max_segments=2)
    config = dataclasses.replace(CONFIG, model=model)
    few = SegmentPyramid(BrightObject(), config, (96, 192), flip=True).evaluate_source(source(), progress=False)
    assert few["AR@10"] == few["ARm@1000"] >= 0.8
    assert few["ARs@1000"] is None
    # The window elsewhere has the best score of all now, and there is room for it and the one of its mirror image alone.
    network = BrightObject()
    outputs = network.__call__

    def other(inputs):
        return outputs(inputs) | {"scores": np.tile(np.float32([[0.01, 0.9, 0.0]]), (len(inputs["images"]), 1))}

    other.get_concrete_function = None
    nothing = SegmentPyramid(other, config, (96, 192), flip=True).evaluate_source(source(), progress=False)
    assert nothing["AR@1000"] == 0.0


def test_levels_are_named_as_those_of_the_network():
    image = image_of(128, 128)
    rows = SegmentPyramid(BrightObject(), CONFIG, (128,)).segment_image(image).to_coco(1)
    assert [row["level"] for row in rows] == ["P3", "P2"]
    single = dataclasses.replace(CONFIG.model, pyramid="c4", anchor_sizes=(40.0,), segment_windows="5x5")
    config = dataclasses.replace(CONFIG, model=single)
    rows = SegmentPyramid(BrightObject(), config, (128,)).segment_image(image).to_coco(1)
    assert [row["level"] for row in rows] == ["C3", "C2"]


def test_ranks_count_all_passes_and_of_equal_scores_the_earlier_first():
    ranks = ranks_of_all([np.float32([0.9, 0.5, 0.1]), np.float32([]), np.float32([0.95, 0.5])])
    assert [one.tolist() for one in ranks] == [[1, 2, 4], [], [0, 3]]
