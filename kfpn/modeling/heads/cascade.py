"""Builds the later box heads of a cascade: each looks at the boxes that the one before has moved (Cascade R-CNN, Cai & Vasconcelos 2018)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kfpn.config.model import CASCADE, ModelConfig
from kfpn.modeling.feature_input import feature_input
from kfpn.modeling.heads.box import predictor, two_fully_connected
from kfpn.modeling.layers import SharedLayers
from kfpn.modeling.units import Units
from kfpn.ops import boxes as box_ops
from kfpn.ops.pyramid_levels import pooled_size

LEAST_SCORE = 1e-30
"""The least score whose logarithm is taken: 0 has none."""


def delta_scale(stage: int) -> tuple[float, ...]:
    """Returns the factors of dy, dx, dh, dw in the targets of a stage: (10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15).

    The boxes of each stage are nearer to the objects than those before, so its deltas are smaller (`BBOX_REG_WEIGHTS` of
    detectron2's `ROI_BOX_CASCADE_HEAD`).

    Args:
        stage: 1, 2 or 3.
    """
    return tuple(stage * factor for factor in box_ops.HEAD_DELTA_SCALE)


@keras.saving.register_keras_serializable("kfpn")
class MovedBoxes(keras.layers.Layer):
    """Moves boxes by the deltas of a stage and cuts them to their images. No gradient passes: the next stage takes them as given.

    Args:
        scale: four factors, see `delta_scale`.

    Call:
        deltas: (B R, 1, 4) float32 (dy, dx, dh, dw), of that stage.
        boxes: (B, R, 4) float32 yxyx pixels, that the stage looked at.
        image_sizes: (B, 2) int, pixels.

    Returns:
        (B, R, 4) float32 yxyx pixels, zeros in empty rows.
    """

    def __init__(self, scale=box_ops.HEAD_DELTA_SCALE, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.scale = tuple(scale)

    def call(self, deltas, boxes, image_sizes):
        deltas = ops.reshape(deltas, (-1, boxes.shape[1], 4))
        moved = box_ops.clip(box_ops.decode_boxes(deltas, boxes, self.scale), image_sizes)
        return ops.stop_gradient(moved)

    def compute_output_spec(self, deltas, boxes, image_sizes):
        return keras.KerasTensor(boxes.shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable("kfpn")
class JoinedStages(keras.layers.Layer):
    """Makes one answer of all stages, in the form of a box head's: the mean of their class scores, and the boxes of the last one.

    So what follows a box head, NMS and all exports, follows a cascade as it is.

    Call:
        logits: [(B R, K + 1)] float32 of each stage, background last.
        deltas: (B R, 1, 4) float32, of the last stage.

    Returns:
        {"logits": (B R, K + 1), "deltas": (B R, K, 4)} float32: the softmax of the logits are the mean scores, and the deltas have
        the scale of the first stage.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, logits, deltas):
        scores = sum(ops.softmax(values, axis=-1) for values in logits) / len(logits)
        each_class = ops.full((1, logits[0].shape[-1] - 1, 1), 1.0 / len(logits), "float32")
        return {"logits": ops.log(ops.maximum(scores, LEAST_SCORE)), "deltas": deltas * each_class}

    def compute_output_spec(self, logits, deltas):
        rows, columns = logits[0].shape
        return {
            "logits": keras.KerasTensor((rows, columns), dtype="float32"),
            "deltas": keras.KerasTensor((rows, columns - 1, 4), dtype="float32"),
        }


@dataclasses.dataclass(frozen=True)
class CascadeStage:
    """A later stage of the cascade, as `kfpn.modeling.heads` describes a head.

    Attributes:
        number: 2 or 3.
        LOOKS_AT: the head before it.
    """

    number: int
    LOOKS_AT: str

    def build(
        self, config: ModelConfig, channels: int, layers: SharedLayers, make_units: type[Units] = Units
    ) -> keras.Model:
        """Builds the submodel: (R, size, size, C) -> {"logits": (R, K + 1), "deltas": (R, 1, 4)}, float32.

        Args:
            config: the model's.
            channels: int, C, of the levels that RoIs are pooled from.
            layers, make_units: not used: the head has layers of its own without convolutions.
        """
        size, suffix = pooled_size(config), f"_{self.number}"
        inputs = feature_input((size, size, channels), f"roi_features{suffix}")
        outputs = predictor(config, two_fully_connected(config, inputs, suffix), suffix)
        return keras.Model(inputs, outputs, name=f"box{suffix}_head")

    def moves(self, config: ModelConfig) -> Callable:
        """Returns the function (outputs of the head before, its boxes, image_sizes) -> boxes (B, R, 4) that this head looks at."""
        layer = MovedBoxes(delta_scale(self.number - 1), name=f"boxes_{self.number}", dtype="float32")

        def boxes_of(outputs: dict, boxes, image_sizes):
            return layer(outputs["deltas"], boxes, image_sizes)

        return boxes_of

    def join(self, config: ModelConfig) -> Callable:
        """Returns the function (outputs, rois) -> (outputs, rois) that puts the answer of the whole cascade in the place of the first head's."""
        layer = JoinedStages(name="joined_stages", dtype="float32")

        def joined(outputs: dict[str, Any], rois) -> tuple[dict[str, Any], Any]:
            stages = [outputs[name] for name in CASCADE]
            box = layer([stage["logits"] for stage in stages], stages[-1]["deltas"])
            return {**outputs, "box": box}, rois._replace(boxes=stages[-1]["boxes"])

        return joined


LATER_STAGES = {name: CascadeStage(number, CASCADE[number - 2]) for number, name in enumerate(CASCADE[1:], start=2)}
"""The heads behind the first one, which is the box head as it stands, with one box for all classes."""
