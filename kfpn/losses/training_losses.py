"""The training storyboard: images, ground truth and noise -> the four losses, over the very same submodels."""

from collections.abc import Callable

from keras import ops

from kfpn.config.run import Config
from kfpn.losses import terms as losses
from kfpn.losses.targets import Targets, roi_targets, rpn_targets
from kfpn.modeling.detector import Submodels
from kfpn.modeling.rpn import level_anchors, select_proposals, usable_anchors
from kfpn.ops import boxes as box_ops
from kfpn.ops.boxes import gather_rows
from kfpn.ops.pyramid_levels import anchors_a_cell, pooled_levels, pooled_size, pre_nms, stride
from kfpn.ops.roi_align import level_cells, roi_align


def stop_gradient(tensors):
    """`ops.stop_gradient` of a nest of lists and dicts."""
    if isinstance(tensors, dict):
        return {key: stop_gradient(value) for key, value in tensors.items()}
    if isinstance(tensors, (list, tuple)):
        return [stop_gradient(value) for value in tensors]
    return ops.stop_gradient(tensors)


def noise_shapes(config: Config, height: int, width: int, max_boxes: int) -> dict[str, tuple[int]]:
    """Returns the shapes, an image, of the noise in 0..1 that the samplers need.

    Args:
        config: the whole configuration.
        height, width: int, of the padded batch.
        max_boxes: int, G, rows of gt_boxes.
    Returns:
        {"rpn": (N,), "roi": (N + G,)}: one value for each anchor, and for each anchor's proposal and each ground-truth
        box. A proposal's is not its rank's: which RoIs are drawn would then hang on rounding, that swaps two ranks.
    """
    cells = sum(-(-height // stride(level)) * -(-width // stride(level)) for level in config.model.levels)
    anchors = cells * anchors_a_cell(config.model)
    return {"rpn": (anchors,), "roi": (anchors + max_boxes,)}


def rpn_losses(outputs, targets: Targets, config: Config) -> dict:
    """Returns {"rpn_class": (B,), "rpn_box": (B,)} of the RPN's outputs and the sampled anchors' targets."""
    sampling = config.sampling
    logits = gather_rows(ops.concatenate(outputs["logits"], axis=1), targets.index)
    deltas = gather_rows(ops.concatenate(outputs["deltas"], axis=1), targets.index)
    size = float(sampling.rpn_batch)
    return {
        "rpn_class": losses.rpn_class_loss(logits, targets.positive, targets.valid, size),
        "rpn_box": losses.box_loss(deltas, targets.deltas, targets.positive, size, sampling.rpn_box_beta),
    }


def roi_losses(outputs, targets: Targets, config: Config) -> dict:
    """Returns {"roi_class": (B,), "roi_box": (B,)} of the box head's outputs (B S, ...) and the RoIs' targets."""
    sampling, classes = config.sampling, config.model.num_classes
    logits = ops.reshape(outputs["logits"], (-1, sampling.roi_batch, classes + 1))
    deltas = ops.reshape(outputs["deltas"], (-1, sampling.roi_batch, classes, 4))
    own_class = ops.one_hot(targets.labels, classes, dtype="float32")
    deltas = ops.sum(deltas * own_class[..., None], axis=2)
    size = float(sampling.roi_batch)
    return {
        "roi_class": losses.roi_class_loss(logits, targets.labels, targets.valid, size),
        "roi_box": losses.box_loss(deltas, targets.deltas, targets.positive, size, sampling.roi_box_beta),
    }


def pool_and_classify(submodels: Submodels, levels, rois, image_sizes, config: Config):
    """Returns the box head's outputs for RoIs (B, S, 4): logits (B S, K + 1), deltas (B S, K, 4)."""
    model, names = config.model, pooled_levels(config.model)
    pooled = roi_align(
        [levels[name] for name in names], rois, level_cells(image_sizes, names), pooled_size(model),
        model.sampling_ratio, model.aligned, model.canonical_size, names,
    )  # fmt: skip
    return submodels.box_head(ops.reshape(pooled, (-1, *pooled.shape[2:])), training=True)


def box_head_losses(submodels: Submodels, config: Config, levels, candidates, exists, batch: dict, noise) -> dict:
    """Samples RoIs among candidates and returns the box head's losses on them, {"roi_class": (B,), "roi_box": (B,)}.

    Args:
        submodels, config, batch: see `training_losses`.
        levels: {"P2": (B, H, W, C), ...} of the submodel `features`.
        candidates: (B, N, 4) float32 yxyx pixels. exists: (B, N) bool; empty boxes don't count in any case.
        noise: (B, N) float32 in 0..1.
    """
    exists = ops.logical_and(exists, box_ops.area(candidates) > 0.0)
    sampled = roi_targets(candidates, exists, batch, config.model.num_classes, config.sampling, noise)
    rois = ops.stop_gradient(sampled.boxes)
    return roi_losses(pool_and_classify(submodels, levels, rois, batch["image_sizes"], config), sampled, config)


def training_losses(submodels: Submodels, config: Config, batch: dict, noise: dict) -> dict:
    """Computes the losses of a batch: a pure function of weights, batch and noise.

    Args:
        submodels: of `build_submodels`; batch-norm statistics are updated in place.
        config: the whole configuration.
        batch: dict of images (B, H, W, 3), image_sizes (B, 2) int32, gt_boxes (B, G, 4) float32 yxyx pixels,
            gt_labels (B, G) int32 with -1 in padding, gt_crowd (B, G) bool.
        noise: dict of rpn (B, N) and roi (B, N + G) float32, uniform in 0..1, see `noise_shapes`.
    Returns:
        {"rpn_class", "rpn_box", "roi_class", "roi_box"}: (B,) float32 each, one loss an image.
    """
    model, sizes = config.model, batch["image_sizes"]
    levels = submodels.padded_features({"images": batch["images"], "image_sizes": sizes}, training=True)
    outputs = submodels.rpn(levels, training=True)
    anchors, usable = level_anchors(levels, sizes, model), usable_anchors(levels, sizes, model)
    sampled_anchors = rpn_targets(
        ops.concatenate(anchors, axis=1), ops.concatenate(usable, axis=1), batch, config.sampling, noise["rpn"]
    )
    proposals, scores, origins = select_proposals(
        stop_gradient(outputs), anchors, usable, sizes,
        pre_nms(model.pre_nms_train, model), model.post_nms_train, model.rpn_nms_iou, model.min_proposal_size,
    )  # fmt: skip
    candidates = ops.concatenate([proposals, batch["gt_boxes"]], axis=1)
    exists = ops.concatenate([scores > -float("inf"), batch["gt_labels"] >= 0], axis=1)
    of_anchors, of_boxes = ops.split(noise["roi"], [noise["rpn"].shape[1]], axis=1)
    roi_noise = ops.concatenate([gather_rows(of_anchors, origins), of_boxes], axis=1)
    return {
        **rpn_losses(outputs, sampled_anchors, config),
        **box_head_losses(submodels, config, levels, candidates, exists, batch, roi_noise),
    }


def fixed_noise_shapes(config: Config, height: int, width: int, max_boxes: int) -> dict[str, tuple[int]]:
    """Returns what `noise_shapes` does, of the only sampler there is here: {"roi": (P + G,)}, in the proposals' order."""
    return {"roi": (config.model.post_nms_train + max_boxes,)}


def fixed_proposal_losses(submodels: Submodels, config: Config, batch: dict, noise: dict) -> dict:
    """Computes the box head's losses on given proposals: the counterpart of `training_losses` without an RPN.

    Args:
        submodels: of `build_submodels`; batch-norm statistics are updated in place.
        config: the whole configuration.
        batch: as `training_losses` takes it, and proposals (B, P, 4) float32 yxyx pixels, zeros in empty rows; P is
            `post_nms_train`.
        noise: dict of roi (B, P + G) float32, uniform in 0..1, see `fixed_noise_shapes`.
    Returns:
        {"roi_class", "roi_box"}: (B,) float32 each, one loss an image.
    """
    sizes = batch["image_sizes"]
    levels = submodels.padded_features({"images": batch["images"], "image_sizes": sizes}, training=True)
    candidates = ops.concatenate([batch["proposals"], batch["gt_boxes"]], axis=1)
    exists = ops.ones_like(candidates[..., 0], dtype="bool")
    return box_head_losses(submodels, config, levels, candidates, exists, batch, noise["roi"])


def storyboard(config: Config) -> tuple[Callable, Callable]:
    """Returns what a run trains by: its losses, and the shapes of its samplers' noise.

    Args:
        config: with `proposals` it is Fast R-CNN on those, else the RPN trains as well.
    Returns:
        `training_losses` and `noise_shapes`, or `fixed_proposal_losses` and `fixed_noise_shapes`.
    """
    return (fixed_proposal_losses, fixed_noise_shapes) if config.proposals else (training_losses, noise_shapes)
