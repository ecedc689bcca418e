"""Shows where the segments of an image come from: the best of each level and of each kind of window, on a page (FPN, figure 4)."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kfpn.config.run import Config
from kfpn.data.augment import prepare_image
from kfpn.data.jpeg_fraction import AnyImage
from kfpn.evaluation.segmentations import decoded_part
from kfpn.evaluation.source_pass import detect_function
from kfpn.inference.images_of_user import readable_images
from kfpn.inference.segments import Segments, segment_image, surest
from kfpn.ops.segment_windows import CELLS, REACH, WindowGrid, window_grids
from kfpn.plotting.segment_page import DrawnSegments, LevelSegments, draw_segment_page

SHOWN_OF_A_LEVEL = 5
"""Segments of a level that are drawn where nothing else is said."""


def visualize_segments(
    model: Callable, config: Config, pages: Mapping[Path, Path], min_score: float = 0.0, count: int = SHOWN_OF_A_LEVEL
) -> list[Path]:
    """Draws a page of each image, see `kfpn.plotting.segment_page.draw_segment_page`.

    An image that can't be read is named on stderr, and the others go on.

    Args:
        model: of `kfpn.load_segmenter(workdir, padded=True)`.
        config: of the run.
        pages: image -> page, see `page_paths`.
        min_score: segments below it are left out.
        count: segments of a level that are drawn at most, the best ones.

    Returns:
        The images that could not be read.
    """
    propose, failed = detect_function(model), []  # type: ignore[var-annotated]
    for _, path, image in readable_images(list(pages), "visualize", failed, config.input):
        resized, segments = segments_of_input(propose, config, image)
        levels = [
            LevelSegments(
                grid.kind, grid.level, grid.size, REACH, len(own), drawn_segments(surest(own, count, min_score))
            )
            for grid in window_grids(config.model)
            for own in [segments_from(segments, grid)]
        ]
        draw_segment_page(resized, levels, drawn_segments(surest(segments, count, min_score)), pages[path])
    return failed


def segments_of_input(propose: Callable, config: Config, image: AnyImage) -> tuple[np.ndarray, Segments]:
    """Returns an image as the network sees it, (H, W, 3) uint8, and its segments in pixels of that.

    Args:
        propose: as `segment_image` takes it.
        config: of the run.
        image: of any size.
    """
    resized, _ = prepare_image(image, config.input)
    # What is resized already has the size that the rule gives it: it stays as it is.
    kind = config.model.levels[0][0]
    return resized, segment_image(propose, resized, config.input, config.model.pasting, kind)


def segments_from(segments: Segments, grid: WindowGrid) -> Segments:
    """Returns the segments that come from one kind of window on one level, in their order."""
    own = (segments.levels == int(grid.level[1:])) & (segments.windows == CELLS[grid.kind])
    arrays = {name: getattr(segments, name)[own] for name in ("boxes", "scores", "masks", "levels", "windows")}
    return dataclasses.replace(segments, **arrays)


def drawn_segments(segments: Segments) -> DrawnSegments:
    """Returns segments as a page draws them."""
    rows = segments.to_coco(0)
    corners = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    corners[:, 2:] += corners[:, :2]
    return DrawnSegments(
        [row["level"] for row in rows], segments.scores, corners, segments.boxes, lambda row: decoded_part(rows[row]["segmentation"])
    )  # fmt: skip
