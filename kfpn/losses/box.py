"""Computes the losses of the box head (Fast R-CNN, section 2.3)."""

from keras import ops

from kfpn.config.run import Config
from kfpn.losses import terms
from kfpn.losses.targets import Targets


def losses(outputs, targets: Targets, batch: dict, config: Config) -> dict:
    """Returns {"roi_class": (B,), "roi_box": (B,)} of the box head's outputs (B S, ...) and the RoIs' targets."""
    sampling, classes = config.sampling, config.model.num_classes
    logits = ops.reshape(outputs["logits"], (-1, sampling.roi_batch, classes + 1))
    deltas = ops.reshape(outputs["deltas"], (-1, sampling.roi_batch, classes, 4))
    own_class = ops.one_hot(targets.labels, classes, dtype="float32")
    deltas = ops.sum(deltas * own_class[..., None], axis=2)
    size = float(sampling.roi_batch)
    return {
        "roi_class": terms.roi_class_loss(logits, targets.labels, targets.valid, size),
        "roi_box": terms.box_loss(deltas, targets.deltas, targets.positive, size, sampling.roi_box_beta),
    }
