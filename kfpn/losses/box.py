"""Computes the losses of the box head (Fast R-CNN, section 2.3)."""

from keras import ops

from kfpn.config.run import Config
from kfpn.losses import terms
from kfpn.losses.targets import Targets


def losses(outputs, targets: Targets, batch: dict, config: Config) -> dict:
    """Computes the losses of the box head: {"roi_class": (B,), "roi_box": (B,)} float32.

    Args:
        outputs: of the head: logits (B S, K + 1) and deltas (B S, K, 4).
        targets: of the S sampled RoIs of each image.
        batch: not used by this head.
        config: the whole configuration.
    """
    sampling, classes = config.sampling, config.model.num_classes
    logits = ops.reshape(outputs["logits"], (-1, sampling.roi_batch, classes + 1))
    deltas = ops.reshape(outputs["deltas"], (-1, sampling.roi_batch, classes, 4))
    # PyTorch has no row of zeros for the background's label, as the others have.
    own_class = ops.one_hot(targets.labels, classes + 1, dtype="float32")[..., :classes]
    deltas = ops.sum(deltas * own_class[..., None], axis=2)
    size = float(sampling.roi_batch)
    return {
        "roi_class": terms.roi_class_loss(logits, targets.labels, targets.valid, size),
        "roi_box": terms.box_loss(deltas, targets.deltas, targets.positive, size, sampling.roi_box_beta),
    }
