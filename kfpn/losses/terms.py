"""Computes the losses, one value an image: RPN class and box, RoI class and box (Faster R-CNN, eq. 1), masks."""

from keras import ops


def smooth_l1(difference, beta):
    """Returns |d| - beta / 2 where |d| >= beta, and d^2 / (2 beta) elsewhere: (...) float; with beta 0 plain L1.

    Args:
        difference: (...) float, prediction - target.
        beta: float, at least 0 (Fast R-CNN, eq. 3, has 1).
    """
    size = ops.abs(difference)
    if beta == 0.0:
        return size
    return ops.where(size < beta, 0.5 * ops.square(size) / beta, size - 0.5 * beta)


def cross_entropy(logits, targets):
    """Returns the binary cross-entropy of each logit: (...) float; `targets` (...) float in 0..1."""
    # In this form, max(x, 0) - x t + log(1 + exp(-|x|)), no large logit of either sign overflows.
    return ops.maximum(logits, 0.0) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))


def rpn_class_loss(logits, positive, valid, normalizer):
    """Returns the binary cross-entropy of sampled anchors: (B,) float32.

    Args:
        logits: (B, S) float, of the sampled anchors.
        positive: (B, S) bool.
        valid: (B, S) bool, False in slots that no anchor fills.
        normalizer: float, what the sum is divided by: the sample's nominal size.
    """
    loss = cross_entropy(logits, ops.cast(positive, logits.dtype))
    return ops.sum(ops.where(valid, loss, 0.0), axis=-1) / normalizer


def box_loss(deltas, targets, positive, normalizer, beta):
    """Returns the smooth L1 of box deltas over the positives: (B,) float32.

    Args:
        deltas, targets: (B, S, 4) float, (dy, dx, dh, dw).
        positive: (B, S) bool.
        normalizer: float, what the sum is divided by.
        beta: see `smooth_l1`.
    """
    # The target of a row that is not positive may be any number, even NaN, so it is left out before the loss.
    difference = ops.where(positive[..., None], deltas - targets, 0.0)
    return ops.sum(smooth_l1(difference, beta), axis=(-2, -1)) / normalizer


def mask_loss(logits, targets, counted):
    """Returns the mean binary cross-entropy of the masks that count (Mask R-CNN, section 3): (B,) float32, 0 where none does.

    Args:
        logits: (B, P, M, M) float, of each RoI's own class.
        targets: (B, P, M, M) float in 0..1.
        counted: (B, P) bool, the positive RoIs whose object has a mask.
    """
    cells = logits.shape[-2] * logits.shape[-1]
    loss = ops.where(counted, ops.sum(cross_entropy(logits, targets), axis=(-2, -1)), 0.0)
    masks = ops.sum(ops.cast(counted, logits.dtype), axis=-1)
    return ops.sum(loss, axis=-1) / (ops.maximum(masks, 1.0) * cells)


def roi_class_loss(logits, labels, valid, normalizer):
    """Returns the softmax cross-entropy of sampled RoIs: (B,) float32.

    Args:
        logits: (B, S, K + 1) float, background last.
        labels: (B, S) int32, 0..K; K is the background.
        valid: (B, S) bool, False in slots that no RoI fills.
        normalizer: float, what the sum is divided by.
    """
    log_probability = ops.log_softmax(logits, axis=-1)
    chosen = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    loss = -ops.sum(log_probability * chosen, axis=-1)
    return ops.sum(ops.where(valid, loss, 0.0), axis=-1) / normalizer
