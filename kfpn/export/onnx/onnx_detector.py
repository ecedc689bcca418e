"""Builds the detector of ONNX's own operations: NonMaxSuppression and RoiAlign instead of TensorFlow's kernels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.model import ModelConfig
from kfpn.export.class_thresholds import above_thresholds
from kfpn.export.onnx.onnx_operations import OnnxOperations
from kfpn.export.raw_detector import RawDetector
from kfpn.export.tensorrt_layers import for_tensorrt
from kfpn.modeling.detector import Detector
from kfpn.modeling.layers import RoIDense
from kfpn.modeling.proposals import ProposalRule, level_anchors, select_proposals
from kfpn.modeling.stages import Rois
from kfpn.modeling.submodels import Submodels
from kfpn.ops.boxes import gather_rows
from kfpn.ops.nms import suppress
from kfpn.ops.pyramid_levels import stride
from kfpn.ops.roi_align import roi_levels


class PooledRois(NamedTuple):
    """Pooled boxes, as one of the two ways of RoIAlign leaves them.

    Attributes:
        features: (R, size, size, C), or with `channels_first` (R, C, size, size).
        channels_first: bool.
        order: (R,) int64, the number of the box in each row; None: the rows are in the boxes' own order.
    """

    features: Any
    channels_first: bool
    order: Any = None

    def channels_last(self) -> tf.Tensor:
        """Returns the features as (R, size, size, C)."""
        return tf.transpose(self.features, (0, 2, 3, 1)) if self.channels_first else self.features


class DenseHead(NamedTuple):
    """A head of fully connected layers, taken apart behind the first one.

    Attributes:
        kernel: (size size C, units) float32, of the first layer.
        bias: (units,) float32.
        rest: what the head does with that layer's output.
    """

    kernel: np.ndarray
    bias: np.ndarray
    rest: keras.Model


def _dense_head(head: keras.Model) -> DenseHead | None:
    """Takes a head apart; None: it does not begin with a fully connected layer."""
    first = next((layer for layer in head.layers if isinstance(layer, RoIDense)), None)
    if first is None:
        return None
    return DenseHead(np.array(first.kernel), np.array(first.bias), keras.Model(first.output, head.output))


class OnnxDetector(RawDetector):
    """The detector of ONNX's own operations.

    Args:
        submodels: with folded norms.
        config: of the model.
        raw: leave out the NMS of the detections.
        static: pool with gathers. In TensorRT, RoiAlign is a plugin, which its parser cannot even look up without a GPU,
            and pooling level by level makes shapes depend on the boxes. Adaptive sampling (`sampling_ratio` 0) has no
            gathers and always uses ONNX's RoiAlign.
        thresholds: the least score of a detection of each label; None: none is left out.

    Attributes:
        operations: those of ONNX that the graph asks for, to be handed to tf2onnx.
    """

    def __init__(
        self,
        submodels: Submodels,
        config: ModelConfig,
        raw: bool,
        static: bool,
        thresholds: Sequence[float] | None = None,
    ):
        # Convolutions instead of matrix products, and Resize instead of a broadcast: both save transpositions here too.
        super().__init__(for_tensorrt(submodels), config, padded=False)
        self.operations = OnnxOperations()
        self.raw = raw
        self.thresholds = thresholds
        self.by_gathers = static and config.sampling_ratio > 0
        self.suppress_by_rounds = static and raw
        self.dense_heads = {name: dense for name, head in submodels.heads.items() if (dense := _dense_head(head))}

    def detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in images (B, H, W, 3) float32; see `export_onnx` for the outputs."""
        shape = tf.shape(images)
        return self(images, tf.tile(shape[None, 1:3], (shape[0], 1)))

    def propose(self, levels, rpn, image_sizes):
        """Proposes with ONNX's NMS. No mask of padding is needed, because images have none."""
        anchors, rule = level_anchors(levels, image_sizes, self.config), ProposalRule.of_inference(self.config)
        boxes, scores, _ = select_proposals(rpn, anchors, [None] * len(anchors), image_sizes, rule, self.suppress)
        return Rois(boxes, scores)

    def suppress(self, boxes, valid, iou_threshold):
        """Does what `kfpn.ops.nms.suppress` does, and calls it where TensorRT-RTX must build an engine."""
        if self.suppress_by_rounds:
            return suppress(boxes, valid, iou_threshold)
        count = boxes.shape[1]
        ranks = tf.where(valid, tf.range(count, 0, -1, tf.float32), 0.0)
        return tf.logical_and(self.operations.nms(boxes, ranks, iou_threshold, 0.0, count), valid)

    def pool(self, levels, boxes, image_sizes, head="box"):
        """Pools boxes: with gathers in their own order, with ONNX's RoiAlign level by level."""
        if self.by_gathers:
            return PooledRois(super().pool(levels, boxes, image_sizes, head), channels_first=False)
        names = self.aligns[head].levels
        level = tf.reshape(roi_levels(boxes, self.config.canonical_size, names), (-1,))
        batch, rows = (boxes.shape[i] or tf.shape(boxes)[i] for i in range(2))
        index = tf.repeat(tf.range(batch, dtype=tf.int64), rows)
        if boxes.shape[0] is not None:
            index = tf.constant(np.repeat(np.arange(boxes.shape[0]), boxes.shape[1]))
        flat = tf.reshape(boxes, (-1, 4))
        if len(names) == 1:
            return PooledRois(self._roi_align(levels, names[0], flat, index, head), channels_first=True)
        order = [tf.where(level == int(name[1:]))[:, 0] for name in names]
        parts = [
            self._roi_align(levels, name, tf.gather(flat, own), tf.gather(index, own), head)
            for name, own in zip(names, order, strict=True)
        ]
        return PooledRois(tf.concat(parts, axis=0), channels_first=True, order=tf.concat(order, axis=0))

    def _roi_align(self, levels, name: str, rois, batch_index, head: str):
        """Pools RoIs (R, 4) yxyx for a head from the level of a name: (R, C, size, size)."""
        config = self.config
        attributes = {
            "sampling_ratio": config.sampling_ratio,
            "spatial_scale": 1.0 / stride(name),
            "coordinate_transformation_mode": "half_pixel" if config.aligned else "output_half_pixel",
        }
        return self.operations.roi_align(levels[name], rois, batch_index, self.aligns[head].size, attributes)

    def heads(self, pooled, training=None):
        """Reads the pooled boxes, and puts the outputs back into the boxes' own order."""
        outputs = {}
        for name, rois in pooled.items():
            dense = self.dense_heads.get(name)
            head = self._by_product(rois, dense) if dense else super().heads({name: rois.channels_last()})[name]
            if rois.order is not None:
                order = rois.order
                back = tf.scatter_nd(order[:, None], tf.range(tf.shape(order)[0]), tf.shape(order, tf.int64))
                head = keras.tree.map_structure(lambda value, back=back: tf.gather(value, back), head)
            outputs[name] = head
        return outputs

    def _by_product(self, pooled: PooledRois, head: DenseHead) -> dict[str, tf.Tensor]:
        """Runs a head of fully connected layers, the first one as a matrix product.

        As a convolution that layer takes ONNX Runtime and OpenVINO five to twenty times as long.
        """
        features, kernel = pooled.features, head.kernel
        if pooled.channels_first:
            size, channels = self.config.roi_size, features.shape[1]
            kernel = kernel.reshape(size, size, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        flat = tf.reshape(features, (-1, len(kernel)))
        return head.rest(tf.nn.bias_add(tf.matmul(flat, kernel), head.bias))

    def select(self, outputs, rois, image_sizes):
        """Selects the detections with ONNX's NMS; with `raw`, returns boxes and scores of all RoIs."""
        candidates = super().select(outputs, rois, image_sizes)
        if self.raw:
            return candidates
        boxes, scores = candidates["boxes"], candidates["scores"]
        best = self._best_per_class(tf.transpose(boxes, (0, 2, 1, 3)), tf.transpose(scores, (0, 2, 1)))
        return above_thresholds(best, self.thresholds)

    def finish(self, stages, image_sizes):
        """Applies the heads that look at detections, unless the file is raw and has none."""
        return super().finish(stages, image_sizes) if self.raw else Detector.finish(self, stages, image_sizes)

    def _best_per_class(self, boxes, scores) -> dict[str, tf.Tensor]:
        """Does what `select_per_class` does: boxes (B, K, R, 4), scores (B, K, R)."""
        config = self.config
        classes, rows = boxes.shape[1:3]
        boxes, scores = tf.reshape(boxes, (-1, rows, 4)), tf.reshape(scores, (-1, rows))
        count = config.max_detections
        keep = self.operations.nms(boxes, scores, config.nms_iou, config.score_threshold, min(count, rows))
        kept = tf.reshape(tf.where(keep, scores, -1.0), (-1, classes * rows))
        missing = max(count - classes * rows, 0)
        best, index = tf.math.top_k(tf.pad(kept, ((0, 0), (0, missing)), constant_values=-1.0), count)
        valid = best > config.score_threshold
        index = tf.where(valid, index, 0)
        boxes = gather_rows(tf.reshape(boxes, (-1, classes * rows, 4)), index)
        return {
            "boxes": tf.where(valid[..., None], boxes, 0.0),
            "scores": tf.where(valid, best, 0.0),
            "labels": tf.where(valid, index // rows, -1),
            "num_detections": tf.reduce_sum(tf.cast(valid, tf.int32), axis=-1),
        }
