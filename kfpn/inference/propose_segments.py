"""Proposes segments in a user's images, and gives them as arrays."""

import os
from collections.abc import Iterable
from typing import Any

import keras

from kfpn.config.checks import is_int
from kfpn.inference.predict import ImageLike, decoded_for, kept_function, require_image, several_images
from kfpn.inference.segments import Segments, segment_image, surest
from kfpn.runs.load import load_segmenter


def propose_segments(
    segmenter: keras.Model | str | os.PathLike,
    images: ImageLike | Iterable[ImageLike],
    *,
    count: int | None = None,
    min_score: float = 0.0,
) -> list[Segments]:
    """Returns the best segments of images of any size.

    Args:
        segmenter: a model of `kfpn.load_segmenter`, with `padded` or without, or a work directory of `kfpn train --task segments`. Pass
            the model if you call this more than once: it is loaded and compiled once.
        images: paths of image files, the bytes of such files, or (H, W, 3) uint8 RGB arrays: one, or several of them. They are
            resized as the training resized them. Of an iterator one image at a time is in memory.
        count: segments of an image at most; None: as many as the model gives, `max_segments`.
        min_score: those below it are left out, 0..1.

    Returns:
        list: one `kfpn.Segments` for each image, also where a single image was given.

    Raises:
        ValueError: if an image can't be read or is another array, the segmenter is another model or can't be loaded, or count or
            min_score is out of range.
    """
    if count is not None and not (is_int(count) and count >= 1):
        raise ValueError(f"count must be a whole number of at least 1 or None, got {count!r}")
    if isinstance(min_score, bool) or not 0.0 <= min_score <= 1.0:
        raise ValueError(f"min_score must lie in 0..1, got {min_score!r}")
    several = several_images(images)
    model = load_segmenter(segmenter, padded=True) if isinstance(segmenter, str | os.PathLike) else segmenter
    config: Any = getattr(model, "model_config", None)
    if not hasattr(model, "input_config") or getattr(config, "task", None) != "segments":
        raise ValueError(
            f"segmenter must be a model of kfpn.load_segmenter, or a work directory of kfpn train --task segments, got {model!r}"
        )
    return [surest(_segments_of(model, image), count or config.max_segments, min_score) for image in several]


def _segments_of(model: Any, picture: ImageLike) -> Segments:
    require_image(picture)
    image = decoded_for(picture, model.input_config)
    kind, padded = model.model_config.levels[0][0], isinstance(model.input, dict)
    return segment_image(kept_function(model), image, model.input_config, model.pasting, kind, padded)
