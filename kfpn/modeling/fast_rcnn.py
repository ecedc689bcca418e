"""Splits the detector at its proposals: a model that makes them, and Fast R-CNN on given ones (FPN, table 2)."""

import dataclasses

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.detector import Detector
from kfpn.modeling.detector_model import DetectorModel
from kfpn.modeling.stages import Rois
from kfpn.modeling.submodels import Submodels, image_inputs
from kfpn.ops import boxes as box_ops


class FastRCNN(Detector):
    """Detects in given proposals, without an RPN.

    Args:
        submodels, config: see `Detector`.
        proposals: (B, P, 4) float32 yxyx in pixels of the input, zeros in empty rows.
    """

    def __init__(self, submodels: Submodels, config: ModelConfig, proposals):
        super().__init__(submodels, config)
        self.given = proposals

    def rpn(self, levels, training=None):
        """Computes nothing, and returns None."""
        return None

    def propose(self, levels, rpn, image_sizes):
        """Returns the given proposals; their scores are 0, and -inf in empty rows."""
        return Rois(self.given, ops.where(box_ops.area(self.given) > 0.0, 0.0, -float("inf")))


def proposals_model(submodels: Submodels, config: ModelConfig, count: int = 1000, nms: str = "rounds") -> keras.Model:
    """Builds the functional model of the first stage, over the weights of its submodels.

    Args:
        submodels: of `build_submodels`.
        config: the one that they were built with. At least `count` boxes of a level enter NMS, even if `pre_nms_test` is
            smaller.
        count: int, P, proposals an image; it replaces `post_nms_test`.
        nms: "rounds", "kernel" or "gpu_kernel", see `Proposals`.

    Call:
        A dict of images (B, H, W, 3) uint8 or float, RGB, 0..255, zero padded below and right, and image_sizes (B, 2)
        int32, the true heights and widths in pixels.

    Returns:
        A functional model whose output is a dict: boxes (B, P, 4) float32 yxyx in pixels of the input, best first, zeros
        in empty rows; scores (B, P) float32 in 0..1, 0 in empty rows.
    """
    inputs = image_inputs()
    config = dataclasses.replace(config, post_nms_test=count, pre_nms_test=max(count, config.pre_nms_test))
    rois = Detector(submodels, config, nms=nms).first_stage(**inputs).rois
    scores = keras.layers.Activation("sigmoid", name="scores", dtype="float32")(rois.scores)
    return keras.Model(inputs, {"boxes": rois.boxes, "scores": scores}, name="proposals")


def fast_rcnn_model(submodels: Submodels, config: ModelConfig) -> keras.Model:
    """Builds the functional model of a detector in given proposals, over the weights of its submodels.

    Args:
        submodels: of `build_submodels`.
        config: the one that they were built with.

    Call:
        The dict that `proposals_model` takes, and proposals (B, P, 4) float32 yxyx in pixels of the input, zeros in empty
        rows; P is `post_nms_test`.

    Returns:
        A functional model with the outputs of `build_detector`.
    """
    images = image_inputs()
    proposals = keras.Input((config.post_nms_test, 4), name="proposals", dtype="float32")
    detections = FastRCNN(submodels, config, proposals)(**images)
    model = DetectorModel({**images, "proposals": proposals}, detections, name="fast_rcnn_fpn")
    if config.mask:
        model.pasting = config.pasting
    return model
