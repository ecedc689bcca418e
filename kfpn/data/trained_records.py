"""Chooses the records that training draws from: all, or those with a box to learn from."""

import numpy as np

from kfpn.config.run import InputConfig
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.record import Source


def trained_records(source: Source, config: InputConfig) -> np.ndarray:
    """Returns the indices of the records that training draws from, in order.

    Args:
        source: to train on.
        config: with `keep_empty` all records; without, those with a box that is not crowd, as detectron2's
            `filter_images_with_only_crowd_annotations` has it.

    Returns:
        (N,) int64 indices into the source.

    Raises:
        ValueError: when no record is left.
    """
    if config.keep_empty:
        return np.arange(len(source), dtype=np.int64)
    kept = np.flatnonzero(_objects_of_records(source))
    if not len(kept):
        raise ValueError(
            f"input.keep_empty must be True for {source.name}, got False: none of its {len(source)} images has a box to learn from"
        )
    return kept.astype(np.int64)


def _objects_of_records(source: Source) -> np.ndarray:
    """Counts the boxes of each record that are not crowd: (N,) int."""
    if not isinstance(source, AnnotatedSource):
        return np.array([int((~np.asarray(source[index].crowd, bool)).sum()) for index in range(len(source))])
    held = source.annotations
    return np.bincount(held.image_of_box()[~held.crowd], minlength=len(source))


def describe_left_out(source: Source, config: InputConfig) -> str | None:
    """Returns one line on the images that training leaves out for want of a box; None: it takes all of them."""
    left_out = len(source) - len(trained_records(source, config))
    if not left_out:
        return None
    return (
        f"{source.name}: trains on {len(source) - left_out:,} of {len(source):,} images: {left_out:,} have no box to learn "
        "from (--input.keep-empty takes them too)"
    )
