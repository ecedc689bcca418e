"""Computes a norm, the ReLU behind it and the mask of the padding as one function that XLA compiles."""

from collections.abc import Callable
from typing import Any

import keras


class IslandNorm(keras.layers.Layer):
    """Computes what a norm computes, and perhaps a ReLU and the product with the mask of valid cells, in one pass over the map.

    TensorFlow's kernels would read and write the map for each of some twenty operations.

    Args:
        norm: `MaskedBatchNormalization` or `MaskedGroupNormalization`, whose variables are used and moved.
        island: compiles a function, see `kfpn.modeling.forms.Forms.island`.
        relu: bool, whether a ReLU follows.
        clear: bool, whether padding is set to zero behind it.

    Call:
        inputs: (B, H, W, C).
        valid: (B, H, W, 1), 1 inside the image, 0 in its padding; None for no padding.

    Returns:
        (B, H, W, C).
    """

    def __init__(self, norm: keras.layers.Layer, island: Callable, relu: bool = False, clear: bool = False):
        super().__init__(name=norm.name, dtype=norm.dtype_policy, autocast=False)
        self.norm = norm
        self.island = island
        self.relu = relu
        self.clear = clear

    def call(self, inputs, valid=None, training=None):
        """Applies the norm and what follows, see the class."""
        mode = {"training": training} if isinstance(self.norm, keras.layers.BatchNormalization) else {}
        variables = self.norm.variables
        before = [keras.ops.convert_to_tensor(variable.value) for variable in variables]

        def compute(inputs: Any, valid: Any, values: list) -> tuple[Any, list]:
            with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
                known = [scope.get_current_value(variable) for variable in variables]
                outputs = self.norm(inputs, valid=valid, **mode)
                after = [scope.get_current_value(variable) for variable in variables]
            if self.relu:
                outputs = keras.ops.relu(outputs)
            if self.clear and valid is not None:
                outputs = outputs * valid
            changed.extend(index for index, value in enumerate(after) if value is not known[index])
            return outputs, [after[index] for index in changed]

        changed: list[int] = []
        outputs, moved = self.island(compute)(inputs, valid, before)
        for index, value in zip(changed, moved, strict=True):
            variables[index].assign(value)
        return outputs

    def compute_output_spec(self, inputs, valid=None, training=None):
        """Returns the shape of the outputs."""
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
