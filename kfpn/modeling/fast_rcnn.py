"""The detector cut in two at its proposals: what gives them, and Fast R-CNN on proposals that are given (FPN, table 2)."""

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.detector import Submodels, detect_in_rois, make_proposals
from kfpn.ops import boxes as box_ops


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
