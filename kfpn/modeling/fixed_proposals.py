"""The detector cut in two at its proposals: what gives them, and Fast R-CNN on proposals that are given (FPN, table 2)."""

from collections.abc import Callable

import keras
from keras import ops

from kfpn import boxes as box_ops
from kfpn.config import Config
from kfpn.model_config import ModelConfig
from kfpn.modeling.detector import Submodels, detect_in_rois, make_proposals
from kfpn.modeling.training import box_head_losses, noise_shapes, training_losses


def _inputs() -> dict[str, keras.KerasTensor]:
    return {
        "images": keras.Input((None, None, 3), name="images", dtype="float32"),
        "image_sizes": keras.Input((2,), name="image_sizes", dtype="int32"),
    }


def proposals_model(submodels: Submodels, config: ModelConfig, count: int = 1000, nms: str = "rounds") -> keras.Model:
    """Composes the first stage over submodels, sharing their weights.

    Args:
        submodels: of `build_submodels`.
        config: the one they were built with. At least `count` proposals a level enter NMS, whatever `pre_nms_test` is.
        count: int, P, proposals an image, whatever `post_nms_test` is.
        nms: "rounds" or "kernel", see `Proposals`.
    Call:
        A dict of images (B, H, W, 3) uint8 or float, RGB, 0..255, zero padded below and right, and image_sizes (B, 2)
        int32, the true heights and widths in pixels.
    Returns:
        A functional model whose output is a dict: boxes (B, P, 4) float32 yxyx in pixels of the input, best first, zeros
        in empty rows; scores (B, P) float32 in 0..1, 0 in empty rows.
    """
    inputs = _inputs()
    levels = submodels.padded_features(inputs)
    propose = make_proposals(config, count, max(count, config.pre_nms_test), nms)
    boxes, logits = propose(levels, submodels.rpn(levels), inputs["image_sizes"])
    scores = keras.layers.Activation("sigmoid", name="scores", dtype="float32")(logits)
    return keras.Model(inputs, {"boxes": boxes, "scores": scores}, name="proposals")


def fast_rcnn_model(submodels: Submodels, config: ModelConfig) -> keras.Model:
    """Composes the second stage over submodels, sharing their weights: a detector without an RPN.

    Args:
        submodels: of `build_submodels`.
        config: the one they were built with.
    Call:
        The dict that `proposals_model` takes, and proposals (B, P, 4) float32 yxyx in pixels of the input, zeros in empty
        rows; P is `post_nms_test`.
    Returns:
        A functional model with the outputs of `build_detector`.
    """
    inputs = {**_inputs(), "proposals": keras.Input((config.post_nms_test, 4), name="proposals", dtype="float32")}
    rois, sizes = inputs["proposals"], inputs["image_sizes"]
    levels = submodels.padded_features({"images": inputs["images"], "image_sizes": sizes})
    roi_scores = ops.where(box_ops.area(rois) > 0.0, 0.0, -float("inf"))
    return keras.Model(inputs, detect_in_rois(submodels, config, levels, rois, roi_scores, sizes), name="fast_rcnn_fpn")


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
