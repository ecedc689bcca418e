"""Removes detections below their class's threshold inside an export's graph, and verifies that an export does so."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from kfpn.export.edge_rows import Rows
from kfpn.export.verify import SCORE_LIMIT, ExportMismatch, compare_as_sets
from kfpn.ops.boxes import gather_rows


def above_thresholds(
    detections: Mapping[str, tf.Tensor], thresholds: Sequence[float] | None
) -> Mapping[str, tf.Tensor]:
    """Returns detections without those below the threshold of their class; the others move up, in their order.

    Args:
        detections: boxes (B, D, 4), scores (B, D), labels (B, D) int32, -1 in empty rows, num_detections (B,).
        thresholds: the least score of each label; None: all stay.

    Returns:
        The same entries. Rows past num_detections have zero boxes, zero scores and the label -1.
    """
    if thresholds is None:
        return detections
    scores, labels = detections["scores"], detections["labels"]
    count = scores.shape[1]
    least = tf.gather(tf.constant(thresholds, tf.float32), tf.maximum(labels, 0))
    keep = tf.logical_and(scores >= least, labels >= 0)
    # The kept rows are sorted by their place and not by their score, because equal scores must not change places.
    rank, place = tf.math.top_k(tf.where(keep, tf.range(count, 0, -1, tf.float32), 0.0), count)
    exists = rank > 0.0
    return {
        "boxes": tf.where(exists[..., None], gather_rows(detections["boxes"], place), 0.0),
        "scores": tf.where(exists, gather_rows(scores, place), 0.0),
        "labels": tf.where(exists, gather_rows(labels, place), -1),
        "num_detections": tf.reduce_sum(tf.cast(keep, tf.int32), axis=-1),
    }


def verify_thresholds(pairs: Iterable[Sequence[Rows]], thresholds: Mapping[int, float]) -> None:
    """Makes sure that an export leaves out what is below the thresholds and nothing else, and prints how much that is.

    Args:
        pairs: for each image two entries: the rows of the same export without thresholds, and those of the export.
        thresholds: class, as the rows have it -> least score. Rows within `SCORE_LIMIT` of it may come or go.

    Raises:
        ExportMismatch: if a row is missing, or one is there that should not be.
    """
    rows, kept, wrong = 0, 0, 0
    for plain, own in pairs:
        reaches, near = _beside_thresholds(plain, thresholds)
        expected = tuple(values[reaches & ~near] for values in plain)
        actual = tuple(values[~_beside_thresholds(own, thresholds)[1]] for values in own)
        wrong += compare_as_sets(expected, actual).unmatched
        rows, kept = rows + len(plain[1]), kept + len(own[1])
    print(f"verify thresholds: {kept} of {rows} rows reach the threshold of their class")
    if wrong:
        raise ExportMismatch(
            f"the export must give the rows that reach the threshold of their class, got {wrong} rows too few or too many of {rows}"
        )


def _beside_thresholds(rows: Rows, thresholds: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Tells of each row whether it reaches its class's threshold, and whether it is so near that it may come or go."""
    least = np.array([thresholds[int(label)] for label in rows[2]], np.float64)
    scores = np.asarray(rows[1], np.float64)
    return scores >= least, np.abs(scores - least) <= SCORE_LIMIT
