"""Puts ONNX's own NonMaxSuppression and RoiAlign into a TensorFlow graph that tf2onnx converts.

tf2onnx knows neither a batched NMS nor RoIAlign. Both stand in the TensorFlow graph as a PyFunc of a known name, which is
never run. When tf2onnx meets the PyFunc, the operation of ONNX takes its place. It does not know Erfc either, a part of GELU.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

OPSET = 18
"""Version of ONNX's operations; RoiAlign with a half-pixel shift needs 16."""


def _never_run(*_inputs):
    raise RuntimeError("this stands for an operation of ONNX and must not be run")


def _convert_erfc(context, node, _name, _arguments):
    """Puts 1 - Erf(x) in the place of Erfc(x), of which TensorFlow makes GELU, and which ONNX has not."""
    outputs = node.output
    shapes, dtypes = [context.get_shape(o) for o in outputs], [context.get_dtype(o) for o in outputs]
    context.remove_node(node.name)
    erf = context.make_node("Erf", node.input)
    one = context.make_const(f"{node.name}_one", np.array(1.0, np.float32))
    context.make_node("Sub", [one.output[0], erf.output[0]], outputs=outputs, shapes=shapes, dtypes=dtypes)


class OnnxOperations:
    """The operations of ONNX that one graph asks for."""

    def __init__(self) -> None:
        self._converters: dict[str, Callable] = {}

    def handlers(self) -> dict:
        """Returns tf2onnx's `custom_op_handlers`."""

        def replace(context, node, name, _arguments):
            key = next(key for key in self._converters if key in name)
            self._converters[key](context, node)

        return {"PyFunc": (replace, []), "Erfc": (_convert_erfc, [])}

    def _placeholder(self, name: str, inputs, dtype, shape, convert: Callable) -> tf.Tensor:
        name = f"{name}_{len(self._converters)}_of_onnx"
        self._converters[name] = convert
        out = tf.numpy_function(_never_run, inputs, dtype, name=name)
        return tf.ensure_shape(out, shape)

    def nms(
        self, boxes: tf.Tensor, scores: tf.Tensor, iou_threshold: float, score_threshold: float, count: int
    ) -> tf.Tensor:
        """Applies greedy NMS to each row.

        Args:
            boxes: (M, N, 4) float32 yxyx.
            scores: (M, N) float32.
            iou_threshold: float.
            score_threshold: float; boxes with scores at or below it are dropped.
            count: int, boxes that are kept in a row, at most.

        Returns:
            (M, N) bool, the boxes that are kept.
        """

        def convert(context, node):
            boxes, scores = node.input
            constants = [
                context.make_const(f"{node.name}_{name}", np.array([value], dtype)).output[0]
                for name, value, dtype in (
                    ("count", count, np.int64), ("iou", iou_threshold, np.float32), ("score", score_threshold, np.float32),
                )
            ]  # fmt: skip
            outputs = node.output
            shapes, dtypes = [context.get_shape(o) for o in outputs], [context.get_dtype(o) for o in outputs]
            context.remove_node(node.name)
            context.make_node(
                "NonMaxSuppression", [boxes, scores, *constants], outputs=outputs, name=node.name, attr={},
                shapes=shapes, dtypes=dtypes, op_name_scope=None,
            )  # fmt: skip

        selected = self._placeholder("nms", [boxes, scores[:, None]], tf.int64, (None, 3), convert)
        at = tf.gather(selected, [0, 2], axis=1)
        marks = tf.scatter_nd(at, tf.ones_like(at[:, 0], tf.float32), tf.shape(scores, tf.int64))
        return marks > 0.0

    def roi_align(
        self, features: tf.Tensor, rois: tf.Tensor, batch_index: tf.Tensor, size: int, attributes: dict
    ) -> tf.Tensor:
        """Pools RoIs from one level.

        Args:
            features: (B, H, W, C) float32.
            rois: (R, 4) float32 yxyx, pixels of the image.
            batch_index: (R,) int64, the image of each RoI.
            size: int, cells of the output a side.
            attributes: sampling_ratio, spatial_scale and coordinate_transformation_mode of ONNX's RoiAlign.

        Returns:
            (R, C, size, size) float32.
        """

        def convert(context, node):
            features, rois, index = node.input
            (output,) = node.output
            context.remove_node(node.name)
            channels_first = context.make_node("Transpose", [features], attr={"perm": [0, 3, 1, 2]})
            inputs = [channels_first.output[0], rois, index]
            attr = {"mode": "avg", "output_height": size, "output_width": size, **attributes}
            context.make_node("RoiAlign", inputs, attr=attr, outputs=[output], name=node.name)

        inputs = [features, tf.gather(rois, [1, 0, 3, 2], axis=1), batch_index]
        return self._placeholder(
            "roi_align", inputs, tf.float32, (rois.shape[0], features.shape[-1], size, size), convert
        )
