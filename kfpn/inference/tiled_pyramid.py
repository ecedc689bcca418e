"""Looks at large images in tiles, each in the sizes of an image pyramid, and measures what that costs."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from kfpn.config.run import Config
from kfpn.config.tile_options import Tiles, tiles_in_force
from kfpn.data.jpeg_fraction import AnyImage
from kfpn.data.record import Source
from kfpn.data.tile_source import TileSource
from kfpn.evaluation.images_at_once import ImagesAtOnce
from kfpn.evaluation.source_pass import SourcePass, outputs_by_image
from kfpn.evaluation.tile_detections import TileDetections
from kfpn.evaluation.tiles_of_image import detect_in_tiles, tiles_at_once, tiles_of_image
from kfpn.inference.image_pyramid import ImagePyramid
from kfpn.inference.timed_passes import TimedDetector

_HUGE = 2**24
"""Pixels: no image is larger, so one that is asked for in this size is decoded whole."""


class TiledPyramid(ImagePyramid):
    """Detects objects in the tiles of an image and in the whole of it, and merges what was found.

    Args:
        model: as `ImagePyramid` takes it.
        config: of the run.
        tiles: with a side, or that of the run.
        scales: short sides to which a tile, and the whole image, is resized. None: the run's own.
        flip: look at the mirror image of each as well.

    Raises:
        ValueError: if the tiles have no side, or as `ImagePyramid`.
    """

    def __init__(
        self,
        model: Callable,
        config: Config,
        tiles: Tiles | int | None = None,
        scales: Sequence[int] | None = None,
        flip: bool = False,
    ) -> None:
        super().__init__(model, config, scales, flip)
        in_force = tiles_in_force(tiles, config.input)
        if in_force is None:
            raise ValueError("tiles must have a side in pixels, got none: take kfpn.ImagePyramid for whole images")
        self.tiles = in_force
        self.largest = dataclasses.replace(config.input, short_side=_HUGE, long_side=_HUGE)
        # The passes are timed on tiles; this one is timed on whole images.
        self._own_size = TimedDetector(self._detect, config)
        self._most: int | None = None
        self._images, self._tile_count = 0, 0

    def detect_source(
        self, source: Source, batch_size: int | None = None, progress: bool = True
    ) -> list[dict[str, Any]]:
        """Returns the detections of every image of a source, as `ImagePyramid.detect_source` does.

        Raises:
            ValueError: as `kfpn.evaluation.detect_source`.
        """
        tile_source = TileSource(source, self.tiles)
        collected = TileDetections(tile_source, self.config.model)
        for number, one in enumerate(self.passes, start=1):
            title = f"detect in tiles at {one.name}, {number} of {len(self.passes)}"
            for tile, row in outputs_by_image(one, SourcePass(tile_source, one.config, batch_size, progress), title):
                collected.add(tile, row)
        merged = self._timed(collected.merged_segmentations, len(tile_source))
        self._time_own_size(source, batch_size)
        return merged

    def detect_image(self, image: AnyImage, image_id: int = 0) -> dict[str, Any]:
        """Returns the detections of one image, as `ImagePyramid.detect_image` does.

        Args:
            image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it for `largest`: whole.
            image_id: goes into the result.

        Raises:
            ValueError: if `image` is not such an image.
        """
        tile_source = tiles_of_image(image, self.tiles, image_id)
        if self._most is None:
            self._most = tiles_at_once(tile_source, self.config)
        at_once = ImagesAtOnce(self._most)
        passes = [(one, one.config.input) for one in self.passes]
        collected = detect_in_tiles(passes, tile_source, self.config.model, at_once)
        self._most = at_once.images
        self._time_own_size_of_image(image)
        return self._timed(collected.merged, len(tile_source))[0]

    def cost(self) -> dict[str, Any]:
        """Returns the measured time of an image so far, as `ImagePyramid.cost` does, and of what it was.

        Returns:
            dict: `tile` pixels; `overlap` float; `whole` bool; `tiles_per_image` float, the tiles of an image and the whole of it, None as
            long as there was no image; and the keys of `ImagePyramid.cost`, `passes` being those over each tile.
        """
        seconds, ratio = None, None
        if self._images and self._own_size.images:
            of_passes = sum(one.seconds / one.images * one.rows for one in self.passes if one.images)
            seconds = (of_passes + self._merge_seconds) / self._images
            ratio = seconds * self._own_size.images / self._own_size.seconds
        return {
            "tile": self.tiles.side,
            "overlap": self.tiles.overlap,
            "whole": self.tiles.whole,
            "tiles_per_image": self._tile_count / self._images if self._images else None,
            **super().cost(),
            "seconds_per_image": seconds,
            "times_one_pass": ratio,
        }

    def cost_line(self) -> str:
        """Returns `cost` as one line of text."""
        cost = self.cost()
        if cost["seconds_per_image"] is None:
            return "tiles: no image, no time"
        whole = ", and the whole image" if self.tiles.whole else ""
        sizes = f" at {', '.join(map(str, self.scales))}{', mirrored too' if self.flip else ''}"
        return (
            f"tiles: {self.tiles.side} pixels a side, overlap {self.tiles.overlap:g}{whole}: {cost['tiles_per_image']:.1f} tiles an "
            f"image{sizes}, {cost['seconds_per_image']:.3g} s an image, {cost['times_one_pass']:.1f} x one pass at "
            f"{self.config.input.short_side} (without compilation and reading files)"
        )

    def _timed(self, merge: Callable[[], list[dict[str, Any]]], tiles: int) -> list[dict[str, Any]]:
        start = time.perf_counter()
        merged = merge()
        self._merge_seconds += time.perf_counter() - start
        self._images, self._tile_count = self._images + len(merged), self._tile_count + tiles
        self._merged_images = self._images
        return merged


def pyramid_asked_for(
    model: Callable,
    config: Config,
    tiles: Tiles | int | None = None,
    scales: Sequence[int] | None = None,
    flip: bool = False,
) -> ImagePyramid | None:
    """Returns what looks at images in tiles or in several sizes; None: they are looked at once.

    Args:
        model, config, tiles, scales, flip: as `TiledPyramid` takes them; tiles of a side of 0 are none.

    Raises:
        ValueError: as `TiledPyramid`.
    """
    in_force = tiles_in_force(tiles, config.input)
    if in_force is not None:
        return TiledPyramid(model, config, in_force, scales, flip)
    return ImagePyramid(model, config, scales, flip) if scales or flip else None
