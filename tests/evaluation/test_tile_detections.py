"""Checks by hand which boxes a tile cuts, and that marked squares are found once each, where they are."""

import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.input_config import InputConfig
from kfpn.config.model import ModelConfig
from kfpn.config.run import Config
from kfpn.config.tile_options import Tiles
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.jpeg_fraction import DecodedImage
from kfpn.data.record import Record
from kfpn.data.tile_source import TileSource
from kfpn.evaluation.images_at_once import ImagesAtOnce
from kfpn.evaluation.merged import AT_ONCE, merge_detections
from kfpn.evaluation.segmentations import parts_of
from kfpn.evaluation.source_pass import SourcePass
from kfpn.evaluation.tile_detections import TileDetections, cut_by_border, detect_tile_source
from kfpn.evaluation.tiles_of_image import detect_in_tiles, tiles_of_image

SIDE = 64
INPUT = InputConfig(short_side=SIDE, long_side=SIDE)  # a tile of 64 pixels stays as it is
CONFIG = Config(data="squares", batch_size=3, eval_batch_size=3, input=INPUT)
NAN = np.nan


class Squares:
    """Stands in for a detector: finds each rectangle of one gray on black, as much as it is shown of it."""

    get_concrete_function = None

    def __init__(self):
        self.shapes = []

    def __call__(self, inputs):
        images = np.asarray(inputs["images"])
        self.shapes.append(images.shape)
        boxes, scores, labels = (np.zeros((len(images), 300, *more), np.float32) for more in ((4,), (), ()))
        counts = np.zeros(len(images), np.int32)
        for index, image in enumerate(images):
            for row, gray in enumerate(sorted(set(np.unique(image[..., 0])) - {0})):
                y, x = np.nonzero(image[..., 0] == gray)
                boxes[index, row] = y.min(), x.min(), y.max() + 1, x.max() + 1
                scores[index, row], counts[index] = gray / 255, row + 1
        return {"boxes": boxes, "scores": scores, "labels": labels.astype(np.int32), "num_detections": counts}


def picture(size, boxes):
    """Returns an image with a rectangle of each box (gray 50, 51 and so on)."""
    image = np.zeros((*size, 3), np.uint8)
    for gray, (top, left, bottom, right) in enumerate(boxes, start=50):
        image[top:bottom, left:right] = gray
    return image


def record_of(image, image_id):
    nothing = np.zeros(0, np.float32)
    labels, crowd = nothing.astype(np.int32), nothing.astype(bool)
    return Record(image, image_id, *image.shape[:2], nothing.reshape(0, 4), labels, crowd, nothing, f"image {image_id}")


# Squares in the middle of tiles, across borders and corners, at the image's border, and exactly at the borders of tiles. Tiles of 64
# begin at 0, 48, 96, ...: each overlap is 16 wide, and no object is larger than 12.
OBJECTS = (
    (10, 10, 20, 20), (58, 4, 70, 16), (30, 56, 42, 68), (57, 150, 69, 162), (0, 100, 10, 112), (188, 238, 200, 250), (96, 200, 106, 210),
    (106, 30, 112, 36), (48, 90, 60, 96), (140, 110, 152, 122), (130, 48, 140, 58), (126, 140, 136, 146),
)  # fmt: skip


@pytest.mark.parametrize("way", ["source", "image"])
def test_every_object_is_found_once_and_exact_to_the_pixel(way):
    tiles, image = Tiles(SIDE, 0.25, whole=False), picture((200, 250), OBJECTS)
    if way == "source":
        source = IterableSource([record_of(image, 5), record_of(picture((64, 60), [(1, 2, 9, 9)]), 6)], ["square"])
        first, second = detect_tile_source(Squares(), SourcePass(TileSource(source, tiles), CONFIG, progress=False))
        assert (first["image_id"], second["image_id"]) == (5, 6)
        assert second["boxes"].tolist() == [[1, 2, 9, 9]]
    else:
        detector, looks = Squares(), tiles_of_image(image, tiles, 5)
        (first,) = detect_in_tiles([(detector, INPUT)], looks, CONFIG.model, ImagesAtOnce(8)).merged()
        # Starts 0 48 96 136 and 0 48 96 144 186: 20 tiles.
        assert detector.shapes == [(8, 64, 64, 3), (8, 64, 64, 3), (4, 64, 64, 3)]
    collected = {
        round(float(score) * 255) - 50: box.tolist() for score, box in zip(first["scores"], first["boxes"], strict=True)
    }
    assert len(first["boxes"]) == len(OBJECTS)
    assert collected == {number: list(box) for number, box in enumerate(OBJECTS)}


def test_an_object_of_any_place_is_found_once_and_exactly_up_to_the_overlap_without_its_two_borders():
    looks = tiles_of_image(np.zeros((SIDE, 160, 3), np.uint8), Tiles(SIDE, 0.25, whole=False))
    for length in (1, 12, 16):
        for left in range(45, 67):
            collected, right = TileDetections(looks, ModelConfig(nms_iou=0.3)), left + length
            for look, (_, begin, _, end) in enumerate(looks.windows.tolist()):
                seen = max(left, begin) - begin, min(right, end) - begin
                collected.add(
                    look,
                    row_of(
                        [[20, seen[0], 30, seen[1]]] if seen[0] < seen[1] else [], [0] * (seen[0] < seen[1]), (64, 64)
                    ),
                )
            (box,) = collected.merged()[0]["boxes"].tolist()
            assert box == [20, left, 30, right] or (length > 12 and box[3] - box[1] >= length - 2)


@pytest.mark.parametrize(
    ("box", "cut", "elsewhere"),
    [
        # The tile shows 100..200; its neighbours end at 120 (above, left) and begin at 180 (below, right).
        ((110, 110, 150, 150), False, False),
        ((110, 185, 150, 200), True, True),  # at the right, beginning in the overlap: the neighbour shows all of it
        ((110, 185, 150, 198.5), True, True),
        ((110, 185, 150, 197.5), False, False),
        ((110, 170, 150, 200), True, False),  # longer than the overlap
        ((110, 182, 150, 200), True, False),  # it begins so near to the neighbour's border that it looks cut there
        ((110, 183, 150, 200), True, True),
        ((100, 110, 115, 150), True, True),
        ((100, 110, 119, 150), True, False),
        ((100, 110, 200, 150), True, False),
        ((185, 170, 200, 200), True, True),  # a corner: the tile below shows more of it
        ((100, 100, 200, 200), True, False),
    ],
)
def test_a_box_at_an_inner_border_is_cut_and_left_to_the_neighbour_that_sees_its_other_end(box, cut, elsewhere):
    rows, window = np.array([box], np.float32), np.array([100, 100, 200, 200])
    of_box = cut_by_border(rows, window, np.array([120, 120, 180, 180]), 2.0)
    assert [bool(flag[0]) for flag in of_box] == [cut, elsewhere]
    # The border of the image cuts nothing.
    assert not any(flag.any() for flag in cut_by_border(rows, window, np.array([NAN] * 4), 2.0))


def row_of(boxes, labels, size, scores=None):
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels, np.int32), "num_detections": np.array(len(labels)),
        "scores": np.array(scores or [0.9] * len(labels), np.float32), "image_sizes": np.array(size), "original_sizes": np.array(size),
    }  # fmt: skip


def test_a_piece_longer_than_the_overlap_is_left_out_if_the_whole_image_shows_its_object():
    looks = tiles_of_image(np.zeros((64, 160, 3), np.uint8), Tiles(SIDE, 0.25))
    assert looks.windows[:, 1].tolist() == [0, 0, 48, 96]
    for label, boxes in ((0, [[20, 30, 50, 150]]), (1, [[20, 30, 50, 150], [20, 30, 50, 64]])):
        collected = TileDetections(looks, ModelConfig())
        collected.add(0, row_of([[20, 30, 50, 150]], [0], (64, 160), [0.8]))
        collected.add(1, row_of([[20, 30, 50, 64]], [label], (64, 64), [0.7]))
        assert collected.merged()[0]["boxes"].tolist() == boxes


def test_boxes_of_a_tile_that_was_resized_are_cut_by_two_pixels_of_its_network_input():
    looks = tiles_of_image(np.zeros((256, 600, 3), np.uint8), Tiles(256, 0.25, whole=False))
    collected = TileDetections(looks, ModelConfig())
    # Tile 1 shows columns 192..448, halved: 61 pixels from its left border are 122, and 3 from the right one 6. The second box begins at
    # 1 pixel, which is 2, and the tile before it shows 64 columns of them.
    row = row_of([[10, 61, 20, 125], [10, 1, 20, 20]], [0, 0], (128, 128))
    collected.add(1, row | {"original_sizes": np.array((256, 256))})
    assert collected.merged()[0]["boxes"].tolist() == [[20, 314, 40, 442]]


def test_an_image_that_was_decoded_at_a_fraction_is_refused():
    image = DecodedImage(np.zeros((32, 32, 3), np.uint8), (64, 64), (0.0, 0.0, 32.0, 32.0))
    with pytest.raises(ValueError, match="image must be decoded whole for tiles"):
        tiles_of_image(image, Tiles(32))


def test_tiles_go_on_with_half_as_many_where_memory_is_used_up():
    class Full(Squares):
        def __call__(self, inputs):
            if len(inputs["images"]) > 2:
                raise tf.errors.ResourceExhaustedError(None, None, "no memory")
            return super().__call__(inputs)

    looks, at_once = tiles_of_image(picture((200, 250), OBJECTS), Tiles(SIDE, 0.25, whole=False)), ImagesAtOnce(8)
    (collected,) = detect_in_tiles([(Full(), INPUT)], looks, CONFIG.model, at_once).merged()
    assert len(collected["boxes"]) == len(OBJECTS)
    assert at_once.images == 2


def test_only_the_source_of_tiles_is_looked_at_in_tiles():
    source = IterableSource([record_of(picture((40, 60), []), 6)], ["square"])
    with pytest.raises(ValueError, match="source must be a TileSource"):
        detect_tile_source(Squares(), SourcePass(source, CONFIG))


def test_many_detections_are_merged_in_parts_with_the_same_result():
    chance = np.random.default_rng(3)
    corners = chance.integers(0, 400, (AT_ONCE + 300, 2)).astype(np.float32)
    looks = {
        "boxes": np.concatenate([corners, corners + 30], 1), "scores": chance.random(len(corners)).astype(np.float32),
        "labels": chance.integers(0, 2, len(corners)).astype(np.int32),
    }  # fmt: skip
    halves = [{name: values[part] for name, values in looks.items()} for part in (slice(0, 700), slice(700, None))]
    for limit in (100, 5000):
        merged = merge_detections(halves, ModelConfig(max_detections=limit, score_threshold=0.1))
        assert merged["boxes"].tolist() == plain_nms(looks, 0.1)[:limit]


def plain_nms(rows, least):
    kept = []
    for index in np.argsort(-rows["scores"], kind="stable"):
        box, label = rows["boxes"][index].astype(np.float64), rows["labels"][index]
        others = np.array([other for other, one in kept if one == label]).reshape(-1, 4)
        sides = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0.0)
        inter = sides.prod(-1)
        if rows["scores"][index] > least and not (inter / (1800 - inter) > 0.5).any():
            kept.append((box, label))
    return [box.tolist() for box, _ in kept]


class MaskedSquares(Squares):
    """Finds the same, and says that the lower half of each rectangle is the object."""

    def __call__(self, inputs):
        outputs = super().__call__(inputs)
        masks = np.zeros((*outputs["labels"].shape, 28, 28), np.float32)
        masks[..., 14:, :] = 1.0
        return outputs | {"masks": masks}


def test_masks_of_tiles_lie_at_their_place_in_the_image():
    tiles, image = Tiles(SIDE, 0.25, whole=False), picture((200, 250), OBJECTS)
    source = IterableSource([record_of(image, 5)], ["square"])
    (collected,) = detect_tile_source(MaskedSquares(), SourcePass(TileSource(source, tiles), CONFIG, progress=False))
    assert len(collected["segmentations"]) == len(OBJECTS)
    parts = parts_of(collected)
    for row, box in enumerate(collected["boxes"].round().astype(int).tolist()):
        window, pixels = parts(row)
        assert [window[0].start, window[1].start, window[0].stop, window[1].stop] == [
            (box[0] + box[2]) // 2,
            *box[1:3],
            box[3],
        ]
        assert pixels.all()
    looks = tiles_of_image(image, tiles, 5)
    (alone,) = detect_in_tiles([(MaskedSquares(), INPUT)], looks, CONFIG.model, ImagesAtOnce(8)).merged()
    assert alone["masks"].shape == (len(OBJECTS), 28, 28)
    assert alone["masks"].dtype == np.float32


def test_the_mask_of_a_whole_object_is_not_averaged_with_that_of_a_tile_that_cuts_it():
    looks = tiles_of_image(np.zeros((64, 160, 3), np.uint8), Tiles(SIDE, 0.25))
    collected = TileDetections(looks, ModelConfig())
    for look, box, score, mask in ((0, [20, 30, 50, 70], 0.8, 1.0), (1, [20, 30, 50, 64], 0.9, 0.0)):
        row = row_of([box], [0], tuple(looks.sizes[look].tolist()), [score])
        collected.add(look, row | {"masks": np.full((1, 28, 28), mask, np.float32)})
    (merged,) = collected.merged()
    assert merged["boxes"].tolist() == [[20, 30, 50, 70]]
    np.testing.assert_allclose(merged["masks"], 1.0)
