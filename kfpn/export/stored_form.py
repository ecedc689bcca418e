"""Rebuilds folded submodels in the form that TensorFlow's kernels for CPUs run fastest, in float32 or bfloat16."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar, get_args

import keras
import numpy as np

from kfpn.config.backbone_names import is_keras_model
from kfpn.config.model import ModelConfig
from kfpn.export.asset_files import ExportPrecision
from kfpn.export.folding import FoldedUnits, stays
from kfpn.export.trained import TrainedDetector, TrainedSegmenter
from kfpn.modeling.heads import find_head
from kfpn.modeling.layers import PointwiseConv2D, SharedLayers
from kfpn.modeling.rpn import rpn_head
from kfpn.modeling.segment_submodels import SegmentSubmodels, assemble_segments, build_segment_submodels
from kfpn.modeling.submodels import Submodels, assemble, build_submodels, features_model
from kfpn.modeling.window_heads import window_head
from kfpn.ops.segment_windows import window_kinds
from kfpn.runs.precision import dtype_policy

Trained = TypeVar("Trained", bound=TrainedDetector | TrainedSegmenter)


class ConvolutionLayers(SharedLayers):
    """A set of layers with `Conv2D` in place of `PointwiseConv2D`.

    TensorFlow's convolution adds the bias, the other branch of a residual block and the ReLU as it writes its output. Behind a
    matrix product the last two are operations of their own.
    """

    def __call__(self, name: str, make: Callable[..., keras.layers.Layer], **options) -> keras.layers.Layer:
        """Returns the layer called `name`, see `SharedLayers`."""
        if make is PointwiseConv2D:
            return super().__call__(name, keras.layers.Conv2D, kernel_size=1, padding="same", **options)
        return super().__call__(name, make, **options)


def policy_of_export(config: ModelConfig, precision: ExportPrecision) -> str:
    """Returns Keras' dtype policy of an export.

    With `bfloat16` the weights are stored in bfloat16: those of `mixed_bfloat16` would be cast in each call. The last layers of RPN and
    heads ask for float32 themselves. The batch norms of a Keras model need their statistics in float32, which they have with
    `mixed_bfloat16`.
    """
    if precision == "float32":
        return "float32"
    return "mixed_bfloat16" if is_keras_model(config.backbone) else "bfloat16"


def stored_form(trained: Trained, precision: ExportPrecision) -> Trained:
    """Returns what was trained, with copies of its weights in the form that TensorFlow's kernels run fastest; for graphs without XLA.

    In float32 its submodels compute the same; in bfloat16 convolutions and products of the backbone, the pyramid and the heads do, but for
    the last layers.

    Args:
        trained: the detector, or what proposes segments, in float32. Its folded submodels stay as they are.
        precision: what the convolutions and matrix products are computed in.
    """
    if precision not in get_args(ExportPrecision):
        raise ValueError(f"precision must be one of {', '.join(get_args(ExportPrecision))}, got {precision!r}")
    config = trained.config.model
    if precision == "float32" and stays(config):
        return trained
    build = _segment_submodels if isinstance(trained, TrainedSegmenter) else _detector_submodels
    with dtype_policy(policy_of_export(config, precision)):
        submodels = build(config)
    pairs = zip(submodels.weights_model.variables, trained.submodels.weights_model.variables, strict=True)
    for variable, value in pairs:
        variable.assign(np.array(value, np.float32))
    return dataclasses.replace(trained, submodels=submodels, precision=precision)  # type: ignore[arg-type]


def _features(config: ModelConfig, layers: SharedLayers) -> tuple[keras.Model, keras.Model]:
    features, padded_features = (features_model(config, layers, padded, FoldedUnits) for padded in (False, True))
    return features, padded_features


def _detector_submodels(config: ModelConfig) -> Submodels:
    if stays(config):
        return build_submodels(config)
    layers = ConvolutionLayers()
    features, padded_features = _features(config, layers)
    channels = features.output[config.levels[0]].shape[-1]
    heads = {name: find_head(name).build(config, channels, layers, FoldedUnits) for name in config.heads}
    return assemble(features, padded_features, rpn_head(config, channels), heads)


def _segment_submodels(config: ModelConfig) -> SegmentSubmodels:
    if stays(config):
        return build_segment_submodels(config)
    features, padded_features = _features(config, ConvolutionLayers())
    channels = features.output[config.levels[0]].shape[-1]
    windows = {kind: window_head(config, channels, kind) for kind in window_kinds(config)}
    return assemble_segments(features, padded_features, windows)
