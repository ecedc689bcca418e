"""Holds the forms of a step that TensorFlow's kernels and XLA share."""

from collections.abc import Callable

import tensorflow as tf

from kfpn.kernels.sparse_roi_align import SparseRoIAlign, TrainedSparseRoIAlign
from kfpn.modeling.forms import Forms


class PlainForms(Forms):
    """Pools RoIs by a sparse matrix, and compiles nothing: for inference."""

    def align(self, layer):
        """Returns the layer that pools by a sparse matrix."""
        return SparseRoIAlign.from_config(layer.get_config())

    def kept(self, pooled):
        """Returns pooled RoIs as they are: TensorFlow computes nothing twice."""
        return pooled


class Islands(PlainForms):
    """Compiles with XLA what stands between the convolutions, but for the pooling: XLA has no sparse matrices."""

    def island(self, function: Callable) -> Callable:
        """Returns the function, compiled."""
        return tf.function(function, jit_compile=True, autograph=False)

    def align(self, layer):
        """Returns the layer that pools by a sparse matrix, with a gradient."""
        return TrainedSparseRoIAlign.from_config(layer.get_config())
