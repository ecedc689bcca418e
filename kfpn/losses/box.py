"""Computes the losses of the box head (Fast R-CNN, section 2.3)."""

from keras import ops

from kfpn.config.model import CASCADE
from kfpn.config.run import Config
from kfpn.losses import terms
from kfpn.losses.targets import Targets

NAMES = ("roi_class", "roi_box")


def gradient_share(config: Config) -> float:
    """Returns which share of the gradient the pyramid gets: with a cascade each of its stages has the same (detectron2's `_ScaleGradient`)."""
    return 1.0 / len(CASCADE) if config.model.cascade else 1.0


def losses(outputs, targets: Targets, batch: dict, config: Config) -> dict:
    """Computes the losses of the box head: {"roi_class": (B,), "roi_box": (B,)} float32.

    Args:
        outputs: of the head: logits (B S, K + 1) and deltas (B S, K, 4), or (B S, 1, 4) of one box for all classes.
        targets: of the S sampled RoIs of each image.
        batch: not used by this head.
        config: the whole configuration.
    """
    sampling, classes = config.sampling, config.model.num_classes
    logits = ops.reshape(outputs["logits"], (-1, sampling.roi_batch, classes + 1))
    deltas = own_deltas(outputs["deltas"], targets.labels, classes)
    size = float(sampling.roi_batch)
    values = (
        terms.roi_class_loss(logits, targets.labels, targets.valid, size),
        terms.box_loss(deltas, targets.deltas, targets.positive, size, sampling.roi_box_beta),
    )
    return dict(zip(NAMES, values, strict=True))


def own_deltas(deltas, labels, classes: int):
    """Takes each RoI's deltas of its own class: (B S, K or 1, 4) and (B, S) int labels -> (B, S, 4).

    Args:
        deltas: (B S, K, 4) float, or (B S, 1, 4) of one box for all classes.
        labels: (B, S) int, K is the background.
        classes: K.
    """
    boxes, rows = deltas.shape[1], labels.shape[1]
    deltas = ops.reshape(deltas, (-1, rows, boxes, 4))
    if boxes < classes:
        return deltas[:, :, 0]
    # PyTorch has no row of zeros for the background's label, as the others have.
    own_class = ops.one_hot(labels, classes + 1, dtype="float32")[..., :classes]
    return ops.sum(deltas * own_class[..., None], axis=2)
