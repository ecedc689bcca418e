"""The detector as ONNX has words for it: its own NonMaxSuppression and RoiAlign instead of TensorFlow's kernels.

tf2onnx knows neither a batched NMS nor RoIAlign. Both stand in the TensorFlow graph as a PyFunc of a known name, which
is never run: when tf2onnx meets it, the operation of ONNX takes its place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.model import ModelConfig
from kfpn.export.tensorrt_layers import for_tensorrt
from kfpn.modeling.detector import Detector, Rois
from kfpn.modeling.heads.box import scored_boxes
from kfpn.modeling.proposals import ProposalRule, level_anchors, select_proposals
from kfpn.modeling.submodels import Submodels
from kfpn.ops.boxes import gather_rows
from kfpn.ops.nms import suppress
from kfpn.ops.pyramid_levels import pooled_size, stride
from kfpn.ops.roi_align import roi_levels

OPSET = 18  # RoiAlign with a half-pixel shift needs 16


def _never_run(*_inputs):
    raise RuntimeError("this stands for an operation of ONNX and must not be run")


class PooledRois(NamedTuple):
    """Pooled boxes, as one of the two ways of RoIAlign leaves them.

    Attributes:
        features: (N, size, size, C), or with `channels_first` (N, C, size, size).
        channels_first: bool.
        order: (N,) int64, which box each row is of; None: the boxes' own order.
    """

    features: Any
    channels_first: bool
    order: Any = None


class OnnxDetector(Detector):
    """The detector as ONNX has words for it, and the operations of ONNX that its graph asks for.

    Args:
        submodels: with folded norms.
        config: of the model.
        raw: leave out the NMS of the detections.
        static: RoIAlign by gathers: TensorRT's own is a plugin, which its parser can't even look up without a GPU, and
            pooling level by level makes shapes depend on the boxes. Adaptive sampling has no other way than ONNX's RoiAlign.
    """

    def __init__(self, submodels: Submodels, config: ModelConfig, raw: bool, static: bool):
        # Convolutions instead of matrix products, and Resize instead of a broadcast: both save transpositions here too.
        super().__init__(for_tensorrt(submodels), config, padded=False)
        self.first_dense, self.rest_of_head = None, self.submodels.heads["box"]
        if config.pyramid != "c4":
            head = submodels.heads["box"]
            first = head.get_layer("head_fc1")
            self.first_dense = np.array(first.kernel), np.array(first.bias)
            self.rest_of_head = keras.Model(first.output, head.output)
        self.raw = raw
        self.by_gathers = static and config.sampling_ratio > 0
        self.suppress_by_rounds = static and raw
        self._wanted: dict[str, Callable] = {}

    def detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in images (B, H, W, 3) float32; see `export_onnx` for the outputs."""
        shape = tf.shape(images)
        return self(images, tf.tile(shape[None, 1:3], (shape[0], 1)))

    def propose(self, levels, rpn, image_sizes):
        """Proposes with ONNX's NMS, and without a mask of padding: there is none."""
        anchors, rule = level_anchors(levels, image_sizes, self.config), ProposalRule.of_inference(self.config)
        boxes, scores, _ = select_proposals(rpn, anchors, [None] * len(anchors), image_sizes, rule, self.suppress)
        return Rois(boxes, scores)

    def handlers(self) -> dict:
        """Returns tf2onnx's `custom_op_handlers`."""

        def replace(context, node, name, _arguments):
            key = next(key for key in self._wanted if key in name)
            self._wanted[key](context, node)

        return {"PyFunc": (replace, [])}

    def _stand_in(self, name: str, inputs, dtype, shape, convert: Callable) -> tf.Tensor:
        name = f"{name}_{len(self._wanted)}_of_onnx"
        self._wanted[name] = convert
        out = tf.numpy_function(_never_run, inputs, dtype, name=name)
        return tf.ensure_shape(out, shape)

    def _nms(self, boxes: tf.Tensor, scores: tf.Tensor, iou_threshold: float, score_threshold: float, count: int):
        """Greedy NMS row by row: boxes (M, N, 4), scores (M, N) -> (M, N) bool, of at most `count` a row."""

        def convert(context, node):
            boxes, scores = node.input
            constants = [
                context.make_const(f"{node.name}_{what}", np.array([value], dtype)).output[0]
                for what, value, dtype in (
                    ("count", count, np.int64), ("iou", iou_threshold, np.float32), ("score", score_threshold, np.float32),
                )
            ]  # fmt: skip
            self._swap(context, node, "NonMaxSuppression", [boxes, scores, *constants], {})

        selected = self._stand_in("nms", [boxes, scores[:, None]], tf.int64, (None, 3), convert)
        at = tf.gather(selected, [0, 2], axis=1)
        marks = tf.scatter_nd(at, tf.ones_like(at[:, 0], tf.float32), tf.shape(scores, tf.int64))
        return marks > 0.0

    @staticmethod
    def _swap(context, node, kind, inputs, attributes):
        name, outputs = node.name, node.output
        shapes, dtypes = [context.get_shape(o) for o in outputs], [context.get_dtype(o) for o in outputs]
        context.remove_node(name)
        return context.make_node(
            kind, inputs, outputs=outputs, name=name, attr=attributes, shapes=shapes, dtypes=dtypes, op_name_scope=None
        )

    def suppress(self, boxes, valid, iou_threshold):
        """Does what `kfpn.ops.nms.suppress` does, or lets it do so where TensorRT-RTX must build an engine."""
        if self.suppress_by_rounds:
            return suppress(boxes, valid, iou_threshold)
        count = boxes.shape[1]
        ranks = tf.where(valid, tf.range(count, 0, -1, tf.float32), 0.0)
        return tf.logical_and(self._nms(boxes, ranks, iou_threshold, 0.0, count), valid)

    def _roi_align(self, features, rois, batch_index, scale):
        """RoIAlign in one level: rois (n, 4) yxyx pixels of the image -> (n, C, size, size)."""
        config = self.config
        size = pooled_size(config)

        def convert(context, node):
            features, rois, index = node.input
            (output,) = node.output
            context.remove_node(node.name)
            channels_first = context.make_node("Transpose", [features], attr={"perm": [0, 3, 1, 2]})
            attributes = {
                "mode": "avg", "output_height": size, "output_width": size, "sampling_ratio": config.sampling_ratio,
                "spatial_scale": scale,
                "coordinate_transformation_mode": "half_pixel" if config.aligned else "output_half_pixel",
            }  # fmt: skip
            inputs = [channels_first.output[0], rois, index]
            context.make_node("RoiAlign", inputs, attr=attributes, outputs=[output], name=node.name)

        inputs = [features, tf.gather(rois, [1, 0, 3, 2], axis=1), batch_index]
        return self._stand_in("roi_align", inputs, tf.float32, (rois.shape[0], features.shape[-1], size, size), convert)

    def pool(self, levels, boxes, image_sizes, head="box"):
        """Pools boxes, and says in which order: by gathers in their own, by ONNX's RoiAlign level by level."""
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
            pooled = self._roi_align(levels[names[0]], flat, index, 1.0 / stride(names[0]))
            return PooledRois(pooled, channels_first=True)
        order = [tf.where(level == int(name[1:]))[:, 0] for name in names]
        parts = [
            self._roi_align(levels[name], tf.gather(flat, own), tf.gather(index, own), 1.0 / stride(name))
            for name, own in zip(names, order, strict=True)
        ]
        return PooledRois(tf.concat(parts, axis=0), channels_first=True, order=tf.concat(order, axis=0))

    def heads(self, pooled, training=None):
        """Reads the pooled boxes, and puts what it read back into the boxes' own order."""
        outputs = {}
        for name, rois in pooled.items():
            found = self._head(rois.features, rois.channels_first)
            if rois.order is not None:
                order = rois.order
                back = tf.scatter_nd(order[:, None], tf.range(tf.shape(order)[0]), tf.shape(order, tf.int64))
                found = {key: tf.gather(value, back) for key, value in found.items()}
            outputs[name] = found
        return outputs

    def _head(self, pooled, channels_first: bool) -> dict[str, tf.Tensor]:
        """The box head over RoIs (R, size, size, C) or (R, C, size, size), its first layer as a matrix product.

        As a convolution it took ONNX Runtime and OpenVINO five to twenty times as long.
        """
        if self.first_dense is None:
            return self.rest_of_head(tf.transpose(pooled, (0, 2, 3, 1)) if channels_first else pooled)
        kernel, bias = self.first_dense
        if channels_first:
            size, channels = self.config.roi_size, pooled.shape[1]
            kernel = kernel.reshape(size, size, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        flat = tf.reshape(pooled, (-1, len(kernel)))
        return self.rest_of_head(tf.nn.bias_add(tf.matmul(flat, kernel), bias))

    def select(self, outputs, rois, image_sizes):
        """Selects the detections with ONNX's NMS; with `raw`, gives each RoI's boxes and scores."""
        boxes, scores = scored_boxes(
            outputs["box"]["logits"], outputs["box"]["deltas"], rois.boxes, rois.scores, image_sizes,
            self.config.min_detection_size,
        )  # fmt: skip
        if self.raw:
            return {"boxes": boxes, "scores": scores}
        return self._best_per_class(tf.transpose(boxes, (0, 2, 1, 3)), tf.transpose(scores, (0, 2, 1)))

    def _best_per_class(self, boxes, scores) -> dict[str, tf.Tensor]:
        """Does what `select_per_class` does: boxes (B, K, N, 4), scores (B, K, N)."""
        config = self.config
        classes, rows = boxes.shape[1:3]
        boxes, scores = tf.reshape(boxes, (-1, rows, 4)), tf.reshape(scores, (-1, rows))
        count = config.max_detections
        keep = self._nms(boxes, scores, config.nms_iou, config.score_threshold, min(count, rows))
        kept = tf.reshape(tf.where(keep, scores, -1.0), (-1, classes * rows))
        short_by = max(count - classes * rows, 0)
        best, index = tf.math.top_k(tf.pad(kept, ((0, 0), (0, short_by)), constant_values=-1.0), count)
        found = best > config.score_threshold
        index = tf.where(found, index, 0)
        boxes = gather_rows(tf.reshape(boxes, (-1, classes * rows, 4)), index)
        return {
            "boxes": tf.where(found[..., None], boxes, 0.0),
            "scores": tf.where(found, best, 0.0),
            "labels": tf.where(found, index // rows, -1),
            "num_detections": tf.reduce_sum(tf.cast(found, tf.int32), axis=-1),
        }
