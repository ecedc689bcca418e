"""Computes the loss of the mask head (Mask R-CNN, section 3)."""

from keras import ops

from kfpn.config.run import Config
from kfpn.losses import terms
from kfpn.losses.mask_targets import grid_targets
from kfpn.losses.targets import Targets, mask_rows
from kfpn.modeling.heads.mask import own_logits
from kfpn.ops.boxes import gather_rows

LOOKS_AT = "positives"
NAMES = ("roi_mask",)


def losses(outputs, targets: Targets, batch: dict, config: Config) -> dict:
    """Computes the loss of the mask head: {"roi_mask": (B,)} float32.

    It is the mean over the masks of an image: its positive RoIs, `sampling.mask_batch` at most, whose object has a mask. The loss
    of a batch is the mean of its images', as all losses here, so that neither replicas nor parts of a batch change it. torchvision
    and detectron2 take one mean over the masks of all images on a device, in which an image with more positives counts more; for a
    single image it is the same.

    Args:
        outputs: (B P, M, M, K) logits of the head, of the first P rows of the sample (`kfpn.losses.targets.mask_rows`).
        targets: of the S sampled RoIs of each image.
        batch: has gt_has_mask (B, G) bool, and either gt_boxes (B, G, 4) and gt_masks (B, G, S, S) uint8, each object's mask over
            its own box, or exact_masks: a function (rois (B, P, 4), gt_index (B, P), -1 where none counts, M) -> targets (B, P, M, M)
            float32.
        config: the whole configuration.
    """
    rows, side = mask_rows(config.sampling), outputs.shape[1]
    index, labels, rois = targets.gt_index[:, :rows], targets.labels[:, :rows], targets.boxes[:, :rows]
    logits = ops.reshape(own_logits(outputs, ops.reshape(labels, (-1,))), (-1, rows, side, side))
    counted = ops.logical_and(targets.positive[:, :rows], gather_rows(batch["gt_has_mask"], index))
    if "exact_masks" in batch:
        wanted = batch["exact_masks"](rois, ops.where(counted, index, -1), side)
    else:
        wanted = grid_targets(batch["gt_masks"], batch["gt_boxes"], rois, index, side)
    return {"roi_mask": terms.mask_loss(logits, ops.stop_gradient(wanted), counted)}
