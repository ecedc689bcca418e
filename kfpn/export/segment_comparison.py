"""Compares segments of an export with those of Keras, as sets of rows."""

from collections.abc import Mapping

import numpy as np
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.export.edge_rows import Rows, Selection
from kfpn.export.verify import SCORE_LIMIT, Difference, compare_as_sets
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.segmenter import Segmenter

Outputs = dict[str, np.ndarray]


def window_names(levels: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Returns the level and the kind of each window, (N,) str such as "P3 5x5": the label by which segments are compared."""
    pairs = zip(np.asarray(levels).astype(int).tolist(), np.asarray(windows).astype(int).tolist(), strict=True)
    return np.array([f"P{level} {window}x{window}" for level, window in pairs], np.str_)


def segment_set(segments: Mapping[str, np.ndarray], count: int) -> Rows:
    """Returns boxes, scores, names and masks of the first `count` segments of an image.

    Args:
        segments: boxes (N, 4), scores (N,), masks (N, M, M), levels and windows (N,).
        count: int.
    """
    names = window_names(segments["levels"][:count], segments["windows"][:count])
    return segments["boxes"][:count], segments["scores"][:count], names, segments["masks"][:count]


def segment_selection(count: int) -> Selection:
    """Returns how segments are selected: the best `count` of an image, without NMS. Those of equal scores may take each other's place."""
    return Selection(threshold=-1.0, most=count)


def keras_segments(submodels: SegmentSubmodels, config: ModelConfig, images: np.ndarray) -> Outputs:
    """Returns what Keras gives for images without padding, with num_segments (B,) int32.

    Args:
        submodels: of `build_segment_submodels`.
        config: the one that they were built with.
        images: (B, H, W, 3) float32, 0..255.
    """
    sizes = ops.convert_to_tensor(np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1)))
    outputs = Segmenter(submodels, config, padded=False)(ops.convert_to_tensor(images), sizes)
    segments = {name: ops.convert_to_numpy(value) for name, value in outputs.items()}
    return {**segments, "num_segments": (segments["levels"] > 0).sum(1).astype(np.int32)}


def segments_difference(expected: Outputs, actual: Outputs, score_limit: float = SCORE_LIMIT) -> Difference:
    """Returns the difference between the segments of two results, image by image.

    Args:
        expected: of `keras_segments`, or a file's outputs; boxes in pixels of the network's input.
        actual: the same.
        score_limit: see `compare_as_sets`.
    """
    total, selection = Difference(), segment_selection(expected["scores"].shape[1])
    for row, counts in enumerate(zip(expected["num_segments"], actual["num_segments"], strict=True)):
        ours, theirs = (
            segment_set({name: value[row] for name, value in result.items()}, int(count))
            for result, count in zip((expected, actual), counts, strict=True)
        )
        total = total.plus(compare_as_sets(ours, theirs, selection, score_limit))
    return total
