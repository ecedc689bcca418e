"""Gives the losses of a run the exact targets of masks, which the host computes in the middle of a step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kfpn.config.run import Config
from kfpn.config.sampling_config import MaskTargets
from kfpn.data.mask_targets_exact import exact_mask_targets
from kfpn.data.object_masks import ObjectMasks
from kfpn.losses.training_losses import training_functions

OUTLINES = "gt_outlines"
"""Name in a batch of the objects' compressed masks, (B, G) bytes: `ObjectMasks.serialized`, empty where there is none."""


def run_functions(config: Config) -> tuple[Callable, Callable]:
    """Returns the two functions that a run trains with, see `kfpn.losses.training_losses.training_functions`.

    Where `sampling.mask_targets` names an exact rule, the losses read the compressed masks of the batch.
    """
    losses, noise_shapes = training_functions(config)
    return (with_exact_masks(losses) if config.masks_on_host else losses), noise_shapes


def with_exact_masks(losses: Callable) -> Callable:
    """Returns losses of a batch whose masks are compressed: a function of the host makes the targets of the sampled RoIs.

    The RoIs are known only within the step, and XLA can't call the host, so it compiles only parts of such a step.

    Args:
        losses: (submodels, config, batch, noise, training) -> losses of each image.
    """

    def of_batch(submodels: Any, config: Config, batch: dict, noise: dict, training: bool = True) -> Any:
        rest = {name: value for name, value in batch.items() if name != OUTLINES}
        compute = partial(_host_targets, batch[OUTLINES], config.sampling.mask_targets)
        return losses(submodels, config, {**rest, "exact_masks": compute}, noise, training=training)

    return of_batch


def _host_targets(outlines: Any, rule: MaskTargets, rois: Any, gt_index: Any, side: int) -> Any:
    """Returns the targets (B, P, M, M) float32 of RoIs (B, P, 4); zeros where `gt_index` (B, P) is -1."""
    import tensorflow as tf

    compute = partial(_targets_of_batch, side=side, rule=rule)
    targets = tf.numpy_function(compute, [outlines, rois, gt_index], tf.float32, stateful=False)
    return tf.ensure_shape(targets, (*gt_index.shape, side, side))


def _targets_of_batch(
    outlines: np.ndarray, rois: np.ndarray, gt_index: np.ndarray, side: int, rule: MaskTargets
) -> np.ndarray:
    targets = np.zeros((*gt_index.shape, side, side), np.float32)
    for image, rows in enumerate(gt_index >= 0):
        if rows.any():
            masks = ObjectMasks.from_serialized(outlines[image])
            targets[image, rows] = exact_mask_targets(masks, rois[image, rows], gt_index[image, rows], side, rule)
    return targets
