"""The detector as ONNX has words for it: its own NonMaxSuppression and RoiAlign instead of TensorFlow's kernels.

tf2onnx knows neither a batched NMS nor RoIAlign. Both stand in the TensorFlow graph as a PyFunc of a known name, which
is never run: when tf2onnx meets it, the operation of ONNX takes its place.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kfpn import boxes as box_ops
from kfpn.config import ModelConfig
from kfpn.export.folding import FoldedUnits
from kfpn.modeling.detector import Submodels, features_model
from kfpn.modeling.layers import PointwiseConv2D, SharedLayers
from kfpn.modeling.nms import suppress
from kfpn.modeling.padding import valid_cells
from kfpn.modeling.pyramid import LEVELS, UpsampleAdd
from kfpn.modeling.resnet import Units
from kfpn.modeling.roi_align import FIRST_LEVEL, LAST_LEVEL, ROI_LEVELS, roi_align, roi_levels
from kfpn.modeling.rpn import level_anchors

OPSET = 18  # RoiAlign with a half-pixel shift needs 16


def _never_run(*_inputs):
    raise RuntimeError("this stands for an operation of ONNX and must not be run")


class _Doubled(keras.layers.Layer):
    """`UpsampleAdd` with an operation that becomes ONNX's Resize: a broadcast would break the layout of channels first."""

    def call(self, coarse, lateral):
        """Doubles, cuts and adds."""
        fine = tf.shape(lateral)
        doubled = tf.raw_ops.ResizeNearestNeighbor(images=coarse, size=tf.shape(coarse)[1:3] * 2)
        return lateral + doubled[:, : fine[1], : fine[2]]

    def compute_output_spec(self, coarse, lateral):
        """Gives the lateral's shape."""
        return keras.KerasTensor(lateral.shape, dtype=self.compute_dtype)


class _Convolutions(SharedLayers):
    """Layers whose 1x1 convolutions are convolutions: a matrix product would need channels last, and a transposition."""

    def __call__(self, name, make, **options):
        """Returns the layer called `name`, see `SharedLayers`."""
        if make is PointwiseConv2D:
            make, options = keras.layers.Conv2D, {**options, "kernel_size": 1, "padding": "same"}
        return super().__call__(name, _Doubled if make is UpsampleAdd else make, **options)


def _features(submodels: Submodels, config: ModelConfig) -> keras.Model:
    model = features_model(config, _Convolutions(), False, Units if config.norm == "gn" else FoldedUnits)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(submodels.features.get_layer(layer.name).get_weights())
    return model


def _best(scores, count):
    """The best `count` of (B, N) scores: they, (B, count) int32 where, and whether they are there at all."""
    missing = count if scores.shape[1] is None else max(count - scores.shape[1], 0)
    if missing:
        scores = tf.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
    best, index = tf.math.top_k(scores, count)
    valid = best > -np.inf
    return best, tf.where(valid, index, 0), valid


def _rows(values, index):
    """Returns values[b, index[b, s]]: (B, S, ...) of (B or 1, N, ...) and (B, S)."""
    if values.shape[0] == 1:
        return tf.gather(values[0], index)
    return tf.gather(values, index, axis=1, batch_dims=1)


class OnnxDetector:
    """The detector's function, and the operations of ONNX that its graph asks for.

    Args:
        submodels: with folded norms.
        config: of the model.
        raw: leave out the NMS of the detections.
        static: RoIAlign by gathers: TensorRT's own is a plugin, which its parser can't even look up without a GPU, and
            pooling level by level makes shapes depend on the boxes. Adaptive sampling has no other way than ONNX's RoiAlign.
    """

    def __init__(self, submodels: Submodels, config: ModelConfig, raw: bool, static: bool):
        self.box_head = submodels.box_head
        self.rpn = submodels.rpn
        self.features = _features(submodels, config)
        self.config = config
        self.raw = raw
        self.static = static
        self._wanted: dict[str, Callable] = {}

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects in images (B, H, W, 3) float32; see `export_onnx` for the outputs."""
        config = self.config
        shape = tf.shape(images)
        sizes = tf.tile(shape[None, 1:3], (shape[0], 1))
        levels = self.features(images)
        outputs = self._anchor_outputs(levels)
        rois, roi_scores = self._proposals(outputs, level_anchors(levels, sizes, config), sizes)
        logits, deltas = self._heads(levels, rois, sizes)
        return self._select(logits, deltas, rois, roi_scores, sizes)

    def _anchor_outputs(self, levels) -> dict:
        def conv(x, name):
            layer = self.rpn.get_layer(name)
            return tf.nn.bias_add(tf.nn.conv2d(x, layer.kernel, 1, "SAME"), layer.bias)

        found: dict[str, list] = {"logits": [], "deltas": []}
        for level in LEVELS:
            x = tf.nn.relu(conv(levels[level], "rpn_conv"))
            for name, size in (("logits", 1), ("deltas", 4)):
                y = conv(x, f"rpn_{name}")
                count = None if None in y.shape[1:3] else y.shape[1] * y.shape[2] * y.shape[3] // size
                rows = -1 if count is None else count
                batch = -1 if y.shape[0] is None and count is not None else tf.shape(y)[0]
                batch = y.shape[0] or batch
                found[name].append(tf.reshape(y, (batch, rows) if size == 1 else (batch, rows, size)))
        return found

    def _proposals(self, outputs, anchors, sizes):
        """Does what `select_proposals` does for images without padding.

        Not that itself: OpenVINO rejects the shapes that Keras' take_along_axis computes.
        """
        config, boxes, scores = self.config, [], []
        for logits, deltas, own in zip(outputs["logits"], outputs["deltas"], anchors, strict=True):
            best, index, valid = _best(logits, min(config.pre_nms_test, logits.shape[1] or config.pre_nms_test))
            decoded = box_ops.clip(box_ops.decode(_rows(deltas, index), _rows(own, index)), sizes)
            sides = decoded[..., 2:] - decoded[..., :2]
            whole = tf.reduce_all((sides > 0.0) & (sides >= config.min_proposal_size), axis=-1)
            keep = self.suppress(decoded, valid & whole, config.rpn_nms_iou)
            boxes.append(decoded)
            scores.append(tf.where(keep, best, -np.inf))
        best, index, valid = _best(tf.concat(scores, axis=1), config.post_nms_test)
        return tf.where(valid[..., None], _rows(tf.concat(boxes, axis=1), index), 0.0), best

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
        """Does what `kfpn.modeling.nms.suppress` does, or lets it do so where TensorRT-RTX must build an engine."""
        if self.static and self.raw:
            return suppress(boxes, valid, iou_threshold)
        count = boxes.shape[1]
        ranks = tf.where(valid, tf.range(count, 0, -1, tf.float32), 0.0)
        return tf.logical_and(self._nms(boxes, ranks, iou_threshold, 0.0, count), valid)

    def _roi_align(self, features, rois, batch_index, scale):
        """RoIAlign in one level: rois (n, 4) yxyx pixels of the image -> (n, size, size, C)."""
        config, channels = self.config, features.shape[-1]
        size = config.roi_size

        def convert(context, node):
            features, rois, index = node.input
            (output,) = node.output
            context.remove_node(node.name)
            nchw = context.make_node("Transpose", [features], attr={"perm": [0, 3, 1, 2]})
            attributes = {
                "mode": "avg", "output_height": size, "output_width": size, "sampling_ratio": config.sampling_ratio,
                "spatial_scale": scale,
                "coordinate_transformation_mode": "half_pixel" if config.aligned else "output_half_pixel",
            }  # fmt: skip
            pooled = context.make_node("RoiAlign", [nchw.output[0], rois, index], attr=attributes)
            context.make_node("Transpose", pooled.output, attr={"perm": [0, 2, 3, 1]}, outputs=[output], name=node.name)

        inputs = [features, tf.gather(rois, [1, 0, 3, 2], axis=1), batch_index]
        return self._stand_in("roi_align", inputs, tf.float32, (rois.shape[0], size, size, channels), convert)

    def _heads(self, levels, rois, sizes):
        config = self.config
        if self.static and config.sampling_ratio > 0:
            cells = [valid_cells(sizes, 2**number) for number in range(FIRST_LEVEL, LAST_LEVEL + 1)]
            pooled = roi_align(
                [levels[name] for name in ROI_LEVELS], rois, cells, config.roi_size, config.sampling_ratio,
                config.aligned, config.canonical_size,
            )  # fmt: skip
            outputs = self.box_head(tf.reshape(pooled, (-1, *pooled.shape[2:])))
            return outputs["logits"], outputs["deltas"]
        level = tf.reshape(roi_levels(rois, config.canonical_size), (-1,))
        batch, rows = (rois.shape[i] or tf.shape(rois)[i] for i in range(2))
        index = tf.repeat(tf.range(batch, dtype=tf.int64), rows)
        if rois.shape[0] is not None:
            index = tf.constant(np.repeat(np.arange(rois.shape[0]), rois.shape[1]))
        flat = tf.reshape(rois, (-1, 4))
        numbers = range(FIRST_LEVEL, FIRST_LEVEL + len(ROI_LEVELS))
        order = [tf.where(level == number)[:, 0] for number in numbers]
        parts = [
            self._roi_align(levels[name], tf.gather(flat, own), tf.gather(index, own), 2.0**-number)
            for name, number, own in zip(ROI_LEVELS, numbers, order, strict=True)
        ]
        outputs = self.box_head(tf.concat(parts, axis=0))
        order = tf.concat(order, axis=0)
        back = tf.scatter_nd(order[:, None], tf.range(tf.shape(order)[0]), tf.shape(order, tf.int64))
        return tf.gather(outputs["logits"], back), tf.gather(outputs["deltas"], back)

    def _select(self, logits, deltas, rois, roi_scores, sizes):
        config = self.config
        boxes, scores = scored_boxes(logits, deltas, rois, roi_scores, sizes, config)
        rows, classes = boxes.shape[1:3]
        if self.raw:
            return {"boxes": boxes, "scores": scores}
        boxes, scores = tf.transpose(boxes, (0, 2, 1, 3)), tf.transpose(scores, (0, 2, 1))
        by_class = tf.reshape(boxes, (-1, rows, 4)), tf.reshape(scores, (-1, rows))
        count = config.max_detections
        keep = self._nms(*by_class, config.nms_iou, config.score_threshold, min(count, rows))
        kept = tf.reshape(tf.where(keep, by_class[1], -1.0), (-1, classes * rows))
        short_by = max(count - classes * rows, 0)
        best, index = tf.math.top_k(tf.pad(kept, ((0, 0), (0, short_by)), constant_values=-1.0), count)
        found = best > config.score_threshold
        index = tf.where(found, index, 0)
        boxes = _rows(tf.reshape(boxes, (-1, classes * rows, 4)), index)
        return {
            "boxes": tf.where(found[..., None], boxes, 0.0),
            "scores": tf.where(found, best, 0.0),
            "labels": tf.where(found, index // rows, -1),
            "num_detections": tf.reduce_sum(tf.cast(found, tf.int32), axis=-1),
        }


def scored_boxes(logits, deltas, rois, roi_scores, sizes, config: ModelConfig):
    """Returns what `Detections` puts into its NMS: boxes (B, R, K, 4) yxyx pixels, scores (B, R, K)."""
    rows, classes = rois.shape[1], deltas.shape[1]
    probability = tf.reshape(tf.nn.softmax(logits)[:, :classes], (-1, rows, classes))
    probability = tf.where((roi_scores > -np.inf)[..., None], probability, 0.0)
    deltas = tf.reshape(deltas, (-1, rows, classes, 4))
    boxes = box_ops.clip(box_ops.decode(deltas, rois[:, :, None], box_ops.HEAD_WEIGHTS), sizes)
    short = tf.reduce_any(boxes[..., 2:] - boxes[..., :2] < config.min_detection_size, axis=-1)
    probability = tf.where(short, 0.0, probability)
    return boxes, probability
