"""The forward storyboard: image -> C2..C5 -> P2..P6 -> RPN -> proposals -> RoIAlign -> box head -> detections."""

import dataclasses
from typing import NamedTuple

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones.resnet import frozen_stage, resnet
from kfpn.modeling.heads.box import Detections, box_head
from kfpn.modeling.layers import Normalize, SharedLayers
from kfpn.modeling.pooling import RoIAlign
from kfpn.modeling.pyramid import STAGES, pyramid
from kfpn.modeling.rpn import Proposals, rpn_head
from kfpn.modeling.units import Units
from kfpn.ops.pyramid_levels import pooled_levels, pooled_size, pre_nms


class Submodels(NamedTuple):
    """The functional models that carry all weights.

    Attributes:
        features: images (B, H, W, 3) -> {"P2": (B, H / 4, W / 4, C), ..., "P6"}.
        padded_features: the same layers with a second input `image_sizes` (B, 2): padding stays zero on every level.
        rpn: {"P2": ...} -> {"logits": [(B, N_l)], "deltas": [(B, N_l, 4)]}, level by level.
        box_head: (R, 7, 7, C), with pyramid c4 (R, 14, 14, C) -> {"logits": (R, K + 1), "deltas": (R, K, 4)}.
        weights_model: a model that holds every variable once: for optimizers, saving and loading.
    """

    features: keras.Model
    padded_features: keras.Model
    rpn: keras.Model
    box_head: keras.Model
    weights_model: keras.Model


@keras.saving.register_keras_serializable("kfpn")
class ImageSizes(keras.layers.Layer):
    """The sizes of images without padding: (B, H, W, 3) -> (B, 2) int32, height and width in pixels."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, images):
        batch, height, width, _ = ops.shape(images)
        ones = ops.ones((batch, 1), "int32")
        return ops.concatenate([ones * height, ones * width], axis=1)

    def compute_output_spec(self, images):
        return keras.KerasTensor((images.shape[0], 2), dtype="int32")


def _image_input() -> keras.KerasTensor:
    return keras.Input((None, None, 3), name="images", dtype="float32")


def _sizes_input() -> keras.KerasTensor:
    return keras.Input((2,), name="image_sizes", dtype="int32")


def features_model(
    config: ModelConfig, layers: SharedLayers, padded: bool, make_units: type[Units] = Units
) -> keras.Model:
    """Builds images -> pyramid over a set of layers.

    Args:
        config: the model's.
        layers: two graphs over the same set share their weights.
        padded: bool, whether there is the second input `image_sizes` that keeps padding at zero.
        make_units: how convolutions and norms are built.
    """
    images = _image_input()
    sizes = _sizes_input() if padded else None
    units = make_units(config, layers, sizes)
    x = layers("normalize", Normalize, mean=config.pixel_mean, std=config.pixel_std)(images)
    levels = pyramid(units, resnet(units, units.clear_padding(x, 1), STAGES[config.pyramid]))
    inputs = {"images": images, "image_sizes": sizes} if padded else images
    return keras.Model(inputs, levels, name="padded_features" if padded else "features")


def build_submodels(config: ModelConfig) -> Submodels:
    """Builds the submodels of a detector, with fresh weights."""
    layers = SharedLayers(frozen_stage(config))
    features, padded_features = (features_model(config, layers, padded) for padded in (False, True))
    channels = features.output[config.levels[0]].shape[-1]
    return assemble(features, padded_features, rpn_head(config, channels), box_head(config, channels, layers))


def assemble(features: keras.Model, padded_features: keras.Model, rpn: keras.Model, head: keras.Model) -> Submodels:
    """Returns submodels together with the model that holds every variable of theirs once."""
    images = _image_input()
    rois = keras.Input(head.input_shape[1:], name="roi_features")
    weights_model = keras.Model([images, rois], [rpn(features(images)), head(rois)], name="weights")
    return Submodels(features, padded_features, rpn, head, weights_model)


def inference_model(
    submodels: Submodels,
    config: ModelConfig,
    padded: bool = False,
    proposals_nms: str = "rounds",
    detections_nms: str = "rounds",
) -> keras.Model:
    """Composes the detector over submodels, sharing their weights.

    Args:
        submodels: of `build_submodels`.
        config: the one they were built with; its test-time settings count here.
        padded: bool, whether the model has the second input `image_sizes`.
        proposals_nms, detections_nms: "rounds" or "kernel", see `Proposals` and `Detections`.
    Returns:
        A functional model, see `build_detector`.
    """
    images = _image_input()
    if padded:
        sizes = _sizes_input()
        inputs = {"images": images, "image_sizes": sizes}
        levels = submodels.padded_features(inputs)
    else:
        sizes = ImageSizes(name="image_sizes")(images)
        inputs, levels = images, submodels.features(images)
    rois, roi_scores = make_proposals(config, nms=proposals_nms)(levels, submodels.rpn(levels), sizes)
    found = detect_in_rois(submodels, config, levels, rois, roi_scores, sizes, detections_nms)
    return keras.Model(inputs, found, name="faster_rcnn_fpn")


def make_proposals(
    config: ModelConfig, post_nms: int | None = None, pre_nms_count: int | None = None, nms: str = "rounds"
) -> Proposals:
    """Returns the layer that makes the detector's proposals.

    Args:
        config: the model's.
        post_nms: proposals an image; None: `config.post_nms_test`.
        pre_nms_count: proposals a level and anchor size that enter NMS; None: `config.pre_nms_test`.
        nms: "rounds" or "kernel", see `Proposals`.
    """
    count = config.pre_nms_test if pre_nms_count is None else pre_nms_count
    return Proposals(
        config.anchor_sizes, config.aspect_ratios, pre_nms(count, config),
        config.post_nms_test if post_nms is None else post_nms, config.rpn_nms_iou,
        config.min_proposal_size, config.round_anchors, config.anchor_strides, nms,
        name="proposals", dtype="float32",
    )  # fmt: skip


def detect_in_rois(submodels: Submodels, config: ModelConfig, levels, rois, roi_scores, sizes, nms: str = "rounds"):
    """Composes the box stage over submodels: levels and RoIs -> detections, see `build_detector`.

    Args:
        submodels, config: see `inference_model`.
        levels: {"P2": (B, H, W, C), ...} of the submodel `features`.
        rois: (B, R, 4) float32 yxyx pixels. roi_scores: (B, R), -inf in empty rows. sizes: (B, 2) int, pixels.
        nms: "rounds" or "kernel", see `Detections`.
    """
    names = pooled_levels(config)
    align = RoIAlign(
        pooled_size(config), config.sampling_ratio, config.aligned, config.canonical_size, names, name="roi_align"
    )
    pooled = align({name: levels[name] for name in names}, rois, sizes)
    outputs = submodels.box_head(ops.reshape(pooled, (-1, *pooled.shape[2:])))
    select = Detections(
        config.score_threshold, config.nms_iou, config.max_detections, config.min_detection_size,
        nms, name="detections", dtype="float32",
    )  # fmt: skip
    return select(outputs["logits"], outputs["deltas"], rois, roi_scores, sizes)


def build_detector(
    num_classes: int = 80, backbone: str = "resnet50", *, pyramid: str = "fpn", padded: bool = False, **settings
) -> keras.Model:
    """Builds a Faster R-CNN with a Feature Pyramid Network, with fresh weights.

    Args:
        num_classes: int, object classes without the background.
        backbone: resnet18, resnet26, resnet34, resnet50, resnet101 or resnet152.
        pyramid: fpn, or one of those the paper compares it with (tables 1 to 3): bottom_up, top_down, finest, c4, c5.
        padded: bool. True adds the input `image_sizes`, for batches of images of different sizes.
        settings: any other field of `kfpn.config.run.ModelConfig`.
    Call:
        images: (B, H, W, 3) uint8 or float, RGB, 0..255, any size. With `padded`, a dict of images, zero
        padded below and right, and image_sizes (B, 2) int32, the true heights and widths in pixels.
    Returns:
        A functional `keras.Model` whose output is a dict: boxes (B, D, 4) float32 yxyx in pixels of the input, scores
        (B, D) float32, labels (B, D) int32 in 0..K-1, num_detections (B,) int32. Rows past num_detections are zero
        boxes, zero scores, label -1.
    Raises:
        ValueError: for a setting that doesn't exist or a value out of range.
    """
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"build_detector settings must be fields of ModelConfig, got {unknown}; known: {sorted(known)}"
        )
    config = ModelConfig(num_classes=num_classes, backbone=backbone, pyramid=pyramid, **settings)  # type: ignore[arg-type]
    return inference_model(build_submodels(config), config, padded)
