"""Computes exact greedy non-maximum suppression with static shapes, for batches, on every backend."""

from keras import ops

from kfpn.ops import boxes as box_ops


def suppress(boxes, valid, iou_threshold, groups=None):
    """Returns which boxes greedy NMS keeps: (B, N) bool.

    A box is kept if no better kept box overlaps it by more than the threshold. At first all boxes are kept; then that rule
    is applied to all boxes at once, again and again until nothing changes. That gives exactly the greedy result: after t
    rounds every box whose chain of suppressors is shorter than t is decided, and a chain is rarely longer than twenty. Each
    round is one masked reduction over the overlaps. docs/formulations.md has the measurements behind this choice.

    Args:
        boxes: (B, N, 4) float32 yxyx, best first.
        valid: (B, N) bool, False for rows that hold no box.
        iou_threshold: float, 0..1; IoU above it suppresses.
        groups: (B, N) int32, or None: boxes suppress only those of their own group (class).
    """
    count = ops.shape(boxes)[1]
    better = ops.arange(count)[:, None] < ops.arange(count)[None, :]
    # overlaps[b, i, j]: box i, if kept, suppresses box j.
    overlaps = ops.logical_and(box_ops.iou(boxes, boxes) > iou_threshold, better[None])
    if groups is not None:
        overlaps = ops.logical_and(overlaps, groups[:, :, None] == groups[:, None, :])

    def changed(_keep, go):
        return go

    def apply_rule(keep, _go):
        beaten = ops.any(ops.logical_and(overlaps, keep[:, :, None]), axis=1)
        new = ops.logical_and(valid, ops.logical_not(beaten))
        return new, ops.any(new != keep)

    keep, _ = ops.while_loop(changed, apply_rule, (valid, ops.convert_to_tensor(True)))
    return keep


def suppress_by_kernel(boxes, valid, iou_threshold):
    """Computes what `suppress` does with TensorFlow's own kernel, for graphs that run without XLA.

    Without XLA the rounds of `suppress` are ten times as slow. The kernel has neither a gradient nor an XLA form.

    Args:
        boxes, valid, iou_threshold: see `suppress`.
    """
    import tensorflow as tf

    count = boxes.shape[1]
    ranks = tf.where(valid, tf.range(count, 0, -1, tf.float32), 0.0)

    def keep_of_one(image):
        kept = tf.image.non_max_suppression(*image, count, iou_threshold, score_threshold=0.0)
        # The flags are floats, because TensorFlow has no kernel for GPUs that scatters bools.
        return tf.scatter_nd(kept[:, None], tf.ones_like(kept, tf.float32), (count,)) > 0.0

    return tf.map_fn(keep_of_one, (boxes, ranks), fn_output_signature=tf.TensorSpec((count,), tf.bool))


FIRST_CANDIDATES = 1000
"""The (class, box) pairs among which the final detections are searched first. A trained detector has tens to hundreds above
its score threshold."""


def select_per_class(boxes, scores, iou_threshold, score_threshold, count, first=FIRST_CANDIDATES):
    """Returns the best `count` detections after NMS within each class: exact, whatever the number of candidates.

    Only better boxes suppress a box. So NMS among the best `first` (class, box) pairs is exact if `count` of them survive,
    or if all pairs above the threshold are among them. Where neither holds, which is rare once a detector is trained, the
    best remaining pair is taken and the pairs that it suppresses are removed, `count` times.

    Args:
        boxes: (B, K, N, 4) float32 yxyx, class by class.
        scores: (B, K, N) float32.
        iou_threshold: float, IoU above it suppresses.
        score_threshold: float, pairs at or below it are dropped.
        count: int, D.
        first: int, pairs that are tried first.

    Returns:
        boxes: (B, D, 4) float32 yxyx, best first.
        scores: (B, D) float32.
        labels: (B, D) int32.
        number: (B,) int32. Rows past it have zero boxes, zero scores and the label -1.
    """
    pairs = ops.shape(scores)[1] * ops.shape(scores)[2]
    if isinstance(pairs, int) and pairs <= first:
        index, best = _among_best(boxes, scores, iou_threshold, score_threshold, count, pairs)
    else:
        index, best = _among_best(boxes, scores, iou_threshold, score_threshold, count, first)
        above = ops.sum(ops.cast(scores > score_threshold, "int32"), axis=(1, 2))
        exact = ops.logical_or(index[:, -1] >= 0, above <= first)
        index, best = ops.cond(
            ops.all(exact),
            lambda: (index, best),
            lambda: _one_by_one(boxes, scores, iou_threshold, score_threshold, count),
        )
    return _rows_of_pairs(boxes, index, best)


def _rows_of_pairs(boxes, index, best):
    """Returns what `select_per_class` returns, from boxes (B, K, N, 4), and each row's pair (B, D) int32 or -1 and score."""
    exists = index >= 0
    index = ops.maximum(index, 0)
    flat_boxes = ops.reshape(boxes, (ops.shape(boxes)[0], -1, 4))
    chosen_boxes = ops.where(exists[..., None], ops.take_along_axis(flat_boxes, index[..., None], axis=1), 0.0)
    labels = ops.where(exists, index // ops.shape(boxes)[2], -1)
    return chosen_boxes, best, labels, ops.sum(ops.cast(exists, "int32"), axis=-1)


def select_by_kernel(boxes, scores, iou_threshold, score_threshold, count):
    """Computes what `select_per_class` does with TensorFlow's own kernel, for graphs that run without XLA.

    Args:
        boxes, scores, iou_threshold, score_threshold, count: see `select_per_class`; (B, K, N, 4) and (B, K, N).

    Returns:
        boxes (B, D, 4), scores (B, D), labels (B, D) int32, number (B,) int32, see `select_per_class`.
    """
    import tensorflow as tf

    best_boxes, best, labels, number = tf.image.combined_non_max_suppression(
        tf.transpose(boxes, (0, 2, 1, 3)), tf.transpose(scores, (0, 2, 1)), max_output_size_per_class=count,
        max_total_size=count, iou_threshold=iou_threshold, score_threshold=score_threshold, clip_boxes=False,
    )  # fmt: skip
    exists = tf.range(count) < number[:, None]
    return best_boxes, best, tf.where(exists, tf.cast(labels, tf.int32), -1), number


def select_by_gpu_kernel(boxes, scores, iou_threshold, score_threshold, count):
    """Computes what `select_per_class` does with operations of TensorFlow that have kernels for GPUs.

    `tf.image.combined_non_max_suppression` has none: on a GPU all boxes would go to the host and back. Here one class of
    one image after another goes through `tf.image.non_max_suppression`; those without a score above the threshold are left
    out. All classes could go through together if each were moved by an offset of its own. But that rounds the corners (in
    float32 those of class 80 to 1/64 pixel), so that other boxes may be kept.

    Args:
        boxes, scores, iou_threshold, score_threshold, count: see `select_per_class`; K and N are static.

    Returns:
        boxes (B, D, 4), scores (B, D), labels (B, D) int32, number (B,) int32, see `select_per_class`.
    """
    import tensorflow as tf

    _, classes, rows = scores.shape
    class_boxes, class_scores = tf.reshape(boxes, (-1, rows, 4)), tf.reshape(scores, (-1, rows))
    busy = tf.where(tf.reduce_any(class_scores > score_threshold, axis=-1))[:, 0]

    def scores_of_kept(place):
        values = class_boxes[place], class_scores[place]
        kept = tf.image.non_max_suppression(*values, count, iou_threshold, score_threshold)
        return tf.scatter_nd(kept[:, None], tf.gather(values[1], kept), (rows,))

    survivors = tf.map_fn(scores_of_kept, busy, fn_output_signature=tf.TensorSpec((rows,), scores.dtype))
    survivors = tf.scatter_nd(busy[:, None], survivors, tf.shape(class_scores, tf.int64))
    survivors = tf.pad(tf.reshape(survivors, (-1, classes * rows)), [[0, 0], [0, max(count - classes * rows, 0)]])
    best, pair = tf.math.top_k(survivors, count)
    return _rows_of_pairs(boxes, tf.where(best > 0.0, pair, -1), best)


def _top_k(scores, count):
    best, index = ops.top_k(scores, count)
    return best, ops.cast(index, "int32")


def _among_best(boxes, scores, iou_threshold, score_threshold, count, first):
    """Applies NMS to the best `first` pairs: (B, D) int32 index of the pair or -1, (B, D) float32 score or 0."""
    batch = ops.shape(scores)[0]
    best, pair = _top_k(ops.reshape(scores, (batch, -1)), first)
    candidates = ops.take_along_axis(ops.reshape(boxes, (batch, -1, 4)), pair[..., None], axis=1)
    keep = suppress(candidates, best > score_threshold, iou_threshold, groups=pair // ops.shape(scores)[2])
    # The kept pairs are sorted by their place and not by their score, because equal scores must not change places.
    order = ops.where(keep, ops.cast(first - ops.arange(first), "int32"), 0)
    short = max(count - first, 0)
    rank, place = (ops.pad(x, ((0, 0), (0, short))) for x in _top_k(order, count - short))
    pair, best = (ops.take_along_axis(x, place, axis=1) for x in (pair, best))
    return ops.where(rank > 0, pair, -1), ops.where(rank > 0, best, 0.0)


def _one_by_one(boxes, scores, iou_threshold, score_threshold, count):
    """Takes the best remaining pair, `count` times: (B, D) int32 index of the pair or -1, (B, D) float32 score or 0."""
    batch, classes, candidates = ops.shape(scores)
    flat_boxes = ops.reshape(boxes, (batch, -1, 4))
    class_ids, slots = ops.arange(classes, dtype="int32"), ops.arange(count, dtype="int32")

    def more(step, remaining, _chosen, _score):
        return ops.logical_and(step < count, ops.any(remaining > score_threshold))

    def take_best(step, remaining, chosen, chosen_score):
        # This is top_k, because argmax becomes an operation that ONNX does not have.
        score, best = _top_k(ops.reshape(remaining, (batch, -1)), 1)
        label = best[:, 0] // candidates
        box = ops.take_along_axis(flat_boxes, best[..., None], axis=1)
        rivals = ops.take_along_axis(boxes, label[:, None, None, None], axis=1)[:, 0]
        # The box itself is removed by its index, because an empty one has no IoU even with itself.
        itself = ops.arange(candidates, dtype="int32")[None] == best % candidates
        beaten = ops.logical_or(box_ops.iou(box, rivals)[:, 0] > iou_threshold, itself)
        same_class = class_ids[None, :] == label[:, None]
        gone = ops.logical_and(same_class[:, :, None], beaten[:, None, :])
        fills = ops.logical_and(slots[None] == step, score > score_threshold)
        chosen, chosen_score = ops.where(fills, best, chosen), ops.where(fills, score, chosen_score)
        return step + 1, ops.where(gone, -1.0, remaining), chosen, chosen_score

    nothing = ops.zeros((batch, count), "int32") - 1, ops.zeros((batch, count), "float32")
    start = (ops.convert_to_tensor(0, "int32"), scores, *nothing)
    return ops.while_loop(more, take_best, start)[2:]


LEVEL_NMS = {"rounds": suppress, "kernel": suppress_by_kernel, "gpu_kernel": suppress_by_kernel}
"""Name -> NMS of the proposals: "rounds" runs on any backend and under XLA, the others in TensorFlow without XLA."""
FINAL_NMS = {"rounds": select_per_class, "kernel": select_by_kernel, "gpu_kernel": select_by_gpu_kernel}
"""Name -> NMS of the detections; the operation of "kernel" runs on the CPU alone."""


def checked_nms(name):
    """Returns a name of `LEVEL_NMS` as it is.

    Raises:
        ValueError: if it is none of them.
    """
    if name not in LEVEL_NMS:
        raise ValueError(f"nms must be one of {', '.join(LEVEL_NMS)}, got {name!r}")
    return name
