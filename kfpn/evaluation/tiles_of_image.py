"""Looks at the tiles of a single image, several at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, InputConfig
from kfpn.config.tile_options import Tiles
from kfpn.data.augment import prepare_image
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.image import load_image
from kfpn.data.jpeg_fraction import AnyImage, as_decoded
from kfpn.data.out_of_memory import is_out_of_memory
from kfpn.data.record import Record
from kfpn.data.tile_source import TileSource
from kfpn.evaluation.images_at_once import ImagesAtOnce, choose_images_at_once
from kfpn.evaluation.source_pass import detect_function
from kfpn.evaluation.tile_detections import TileDetections

Pass = tuple[Callable, InputConfig]
"""A detector as `detect_source` takes it, and the rule by which images are resized for it."""


def tiles_of_image(image: AnyImage, tiles: Tiles, image_id: int = 0) -> TileSource:
    """Returns what is looked at of one image.

    Args:
        image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it, decoded whole.
        tiles: with a side.
        image_id: of the image.

    Raises:
        ValueError: if it is not such an image.
    """
    decoded = as_decoded(image)
    if not decoded.is_whole():
        raise ValueError(
            f"image must be decoded whole for tiles, got {decoded.pixels.shape[:2]} of {decoded.size}: leave out `needed`"
        )
    nothing = np.zeros(0, np.float32)
    record = Record(
        image=decoded.pixels, image_id=image_id, height=decoded.size[0], width=decoded.size[1],
        boxes=np.zeros((0, 4), np.float32), labels=nothing.astype(np.int32), crowd=nothing.astype(bool), areas=nothing,
    )  # fmt: skip
    return TileSource(IterableSource([record], ["object"], name="image"), tiles)


def detect_in_tiles(
    passes: Sequence[Pass],
    tile_source: TileSource,
    model: ModelConfig,
    at_once: ImagesAtOnce,
    canvas_divisor: int | None = None,
) -> TileDetections:
    """Returns what detectors find in the tiles of one image.

    Args:
        passes: what looks at each tile.
        tile_source: of `tiles_of_image`.
        model: as `TileDetections` takes it.
        at_once: how many tiles a detector is given.
        canvas_divisor: images are padded to a multiple of this many pixels. None: the rule's own; 1: they are not padded.

    Raises:
        OutOfMemoryError: where memory is not enough for one tile.
    """
    collected = TileDetections(tile_source, model)
    for detector, rule in passes:
        call = detect_function(detector)
        for size in np.unique(tile_source.sizes, axis=0):
            members = np.flatnonzero((tile_source.sizes == size).all(-1))
            for tile, row in _rows_of_tiles(call, tile_source, members, rule, at_once, canvas_divisor or rule.divisor):
                collected.add(tile, row)
    return collected


def tiles_at_once(tile_source: TileSource, config: Config) -> int:
    """Returns how many tiles of an image a detector is given at once, as `choose_images_at_once` says."""
    return choose_images_at_once(tile_source, config).images


def _rows_of_tiles(
    call: Callable, tile_source: TileSource, members: np.ndarray, rule: InputConfig, at_once: ImagesAtOnce, divisor: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields the index and the row of outputs of each of some tiles of one size."""
    done = 0
    while done < len(members):
        chosen = members[done : done + at_once.images]
        batch = _batch(tile_source, chosen, rule, divisor)
        try:
            outputs = {name: np.asarray(value) for name, value in call(batch).items()}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            at_once.halve(batch["images"].shape[1:3], error)
            continue
        for row, tile in enumerate(chosen.tolist()):
            of_tile = {name: values[row] for name, values in outputs.items()}
            yield tile, of_tile | {"image_sizes": batch["image_sizes"][row], "original_sizes": tile_source.sizes[tile]}
        done += len(chosen)


def _batch(tile_source: TileSource, chosen: np.ndarray, rule: InputConfig, divisor: int) -> dict[str, Any]:
    """Returns a batch of tiles of one size, with black ones up to a power of two: so there are few sizes of batches."""
    parts = [prepare_image(load_image(tile_source[tile]), rule) for tile in chosen.tolist()]
    height, width = parts[0][1]
    canvas = height + -height % divisor, width + -width % divisor
    rows = 1 << (len(parts) - 1).bit_length()
    images = np.zeros((rows, *canvas, 3), np.uint8)
    for row, (pixels, _) in enumerate(parts):
        images[row, :height, :width] = pixels
    return {"images": images, "image_sizes": np.tile(np.array([[height, width]], np.int32), (rows, 1))}
