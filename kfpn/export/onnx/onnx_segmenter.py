"""Builds what proposes segments of operations that tf2onnx converts."""

from typing import Any

import tensorflow as tf

from kfpn.config.model import ModelConfig
from kfpn.export.onnx.onnx_operations import OnnxOperations
from kfpn.export.tensorrt_layers import features_for_tensorrt
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.segmenter import Segmenter


class OnnxSegmenter(Segmenter):
    """The segmenter for images without padding. There is no NMS and no RoIAlign in it, so all of it is TensorFlow's.

    Args:
        submodels: with folded norms.
        config: of the model.

    Attributes:
        operations: of ONNX that tf2onnx does not know: none.
    """

    def __init__(self, submodels: SegmentSubmodels, config: ModelConfig):
        features = features_for_tensorrt(submodels.features)
        super().__init__(submodels._replace(features=features), config, padded=False)
        self.operations = OnnxOperations()

    def detect(self, images: tf.Tensor) -> dict[str, Any]:
        """Proposes segments in images (B, H, W, 3) float32; see `export_onnx` for the outputs."""
        shape = tf.shape(images)
        segments = self(images, tf.tile(shape[None, 1:3], (shape[0], 1)))
        exists = segments["levels"] > 0
        # ONNX Runtime's Sigmoid gives more than 0 for the -inf of an empty row.
        scores = tf.where(exists, segments["scores"], 0.0)
        count = tf.reduce_sum(tf.cast(exists, tf.int32), axis=-1)
        return {**segments, "scores": scores, "num_segments": count}
