"""Builds the box heads: two fully connected layers (FPN, section 4.2), or the backbone's last stage (FPN, table 2 a)."""

from collections.abc import Callable

import keras
from keras import ops

from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones import find_backbone
from kfpn.modeling.feature_input import feature_input
from kfpn.modeling.layers import RoIDense, SharedLayers
from kfpn.modeling.units import Units
from kfpn.ops import boxes as box_ops
from kfpn.ops.nms import FINAL_NMS, checked_nms
from kfpn.ops.pyramid_levels import pooled_size

LOOKS_AT = "proposals"


def two_fully_connected(config: ModelConfig, x, suffix: str = ""):
    """Applies two layers of `head_width` with ReLU: (R, size, size, C) -> (R, head_width).

    Args:
        config: the model's.
        x: pooled RoIs.
        suffix: of the names of the layers, for a later stage of a cascade.
    """
    for i, dense in enumerate((RoIDense, keras.layers.Dense), start=1):
        # detectron2 starts these layers with Caffe2's XavierFill.
        start = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
        x = dense(config.head_width, kernel_initializer=start, name=f"head_fc{i}{suffix}")(x)
        if config.norm_heads:
            x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"head_fc{i}{suffix}_norm")(x)
        x = keras.layers.ReLU(name=f"head_relu{i}{suffix}")(x)
    return x


def last_stage_average(units: Units, x):
    """Applies the backbone's last stage and averages its cells: (R, 2 size, 2 size, C) -> (R, channels of C5)."""
    last_stage = find_backbone(units.config.backbone).build_last_stage
    return keras.layers.GlobalAveragePooling2D(name="head_average")(last_stage(units, x))


def predictor(config: ModelConfig, x, suffix: str = "") -> dict:
    """Applies the last layers, float32 in mixed precision as well: (R, width) -> logits (R, K + 1) and deltas (R, K, 4).

    In a cascade the deltas are (R, 1, 4), one box for all classes (Cascade R-CNN, section 5.1).

    Args:
        config, suffix: as for `two_fully_connected`.
        x: (R, width) float.
    """
    classes = config.num_classes
    boxes = 1 if config.cascade else classes

    def last(units, stddev, name):
        start = keras.initializers.RandomNormal(stddev=stddev)
        return keras.layers.Dense(units, kernel_initializer=start, name=f"{name}{suffix}", dtype="float32")(x)

    logits, deltas = last(classes + 1, 0.01, "head_logits"), last(boxes * 4, 0.001, "head_deltas")
    return {"logits": logits, "deltas": keras.layers.Reshape((boxes, 4), dtype="float32")(deltas)}


def build(config: ModelConfig, channels: int, layers: SharedLayers, make_units: type[Units] = Units) -> keras.Model:
    """Builds the submodel `box_head`: (R, size, size, C) -> {"logits": (R, K + 1), "deltas": (R, K, 4)}, float32.

    The background is the last logit. Each class has its own deltas (dy, dx, dh, dw), but for a cascade, see `predictor`.

    Args:
        config: the model's.
        channels: int, C, of the levels that RoIs are pooled from.
        layers: the set that the backbone is built over; with pyramid c4 the head takes its last stage from there.
        make_units: builds the convolutions and norms of that stage.
    """
    size = pooled_size(config)
    inputs = feature_input((size, size, channels), "roi_features")
    if config.pyramid == "c4":
        x = last_stage_average(make_units(config, layers), inputs)
    else:
        x = two_fully_connected(config, inputs)
    return keras.Model(inputs, predictor(config, x), name="box_head")


def scored_boxes(logits, deltas, rois, roi_scores, image_sizes, min_size):
    """Returns each RoI's box and score in every class, before thresholds and NMS.

    Args:
        logits: (B R, K + 1) float32, background last.
        deltas: (B R, K, 4) float32.
        rois: (B, R, 4) float32 yxyx.
        roi_scores: (B, R), -inf in empty rows.
        image_sizes: (B, 2) int, pixels.
        min_size: float, pixels: boxes with a shorter side, once clipped, get the score 0.

    Returns:
        boxes: (B, R, K, 4) float32 yxyx pixels, cut to their images.
        scores: (B, R, K) float32 in 0..1, 0 in empty rows.
    """
    rows, classes = rois.shape[1], deltas.shape[1]
    scores = ops.reshape(ops.softmax(logits, axis=-1)[:, :classes], (-1, rows, classes))
    scores = ops.where((roi_scores > -float("inf"))[..., None], scores, 0.0)
    deltas = ops.reshape(deltas, (-1, rows, classes, 4))
    boxes = box_ops.clip(box_ops.decode_boxes(deltas, rois[:, :, None], box_ops.HEAD_DELTA_SCALE), image_sizes)
    too_short = ops.any(boxes[..., 2:] - boxes[..., :2] < min_size, axis=-1)
    return boxes, ops.where(too_short, 0.0, scores)


# Files of models call it "Detections", as it was called in 0.1.0.
@keras.saving.register_keras_serializable("kfpn", name="Detections")
class SelectDetections(keras.layers.Layer):
    """Selects the final detections.

    Args:
        score_threshold: float, scores at or below it are dropped.
        iou_threshold: float, of the NMS within each class.
        count: int, D, detections an image at most.
        min_size: float, pixels: boxes with a shorter side, once clipped, are dropped before NMS.
        nms: "rounds" (any backend, XLA), "kernel" or "gpu_kernel" (TensorFlow without XLA), with the same result.

    Call:
        logits, deltas, rois, roi_scores, image_sizes: see `scored_boxes`.

    Returns:
        dict of boxes (B, D, 4) float32 yxyx pixels, scores (B, D) float32, labels (B, D) int32, num_detections (B,) int32.
        Rows past num_detections have zero boxes, zero scores and the label -1.
    """

    def __init__(self, score_threshold=0.05, iou_threshold=0.5, count=100, min_size=0.0, nms="rounds", **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.count = count
        self.min_size = min_size
        self.nms = checked_nms(nms)

    def call(self, logits, deltas, rois, roi_scores, image_sizes):
        boxes, scores = scored_boxes(logits, deltas, rois, roi_scores, image_sizes, self.min_size)
        boxes, scores = ops.transpose(boxes, (0, 2, 1, 3)), ops.transpose(scores, (0, 2, 1))
        best = FINAL_NMS[self.nms](boxes, scores, self.iou_threshold, self.score_threshold, self.count)
        return dict(zip(("boxes", "scores", "labels", "num_detections"), best, strict=True))

    def compute_output_spec(self, logits, deltas, rois, roi_scores, image_sizes):
        batch = rois.shape[0]
        return {
            "boxes": keras.KerasTensor((batch, self.count, 4), dtype="float32"),
            "scores": keras.KerasTensor((batch, self.count), dtype="float32"),
            "labels": keras.KerasTensor((batch, self.count), dtype="int32"),
            "num_detections": keras.KerasTensor((batch,), dtype="int32"),
        }

    def get_config(self):
        own = ("score_threshold", "iou_threshold", "count", "min_size", "nms")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def select(config: ModelConfig, nms: str = "rounds") -> Callable:
    """Returns the function (outputs, rois, image_sizes) -> detections, see `kfpn.modeling.heads` and `SelectDetections`.

    Args:
        config: the model's, with thresholds and counts.
        nms: "rounds", "kernel" or "gpu_kernel", see `SelectDetections`.
    """
    layer = SelectDetections(
        config.score_threshold, config.nms_iou, config.max_detections, config.min_detection_size,
        nms, name="detections", dtype="float32",
    )  # fmt: skip

    def detections_of(outputs: dict, rois, image_sizes) -> dict:
        return layer(outputs["logits"], outputs["deltas"], rois.boxes, rois.scores, image_sizes)

    return detections_of
