"""Runs a detector by JAX on all devices of this process at once, the rows of a batch shared between them."""

from collections.abc import Mapping
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kfpn.training.backends.jax_placement import AXIS


class JaxDetector:
    """Gives each device its rows of a batch, and puts the outputs together in the order of the rows.

    What a device computes does not depend on how many there are: its rows are a batch of their own.

    Args:
        model: a detector over the weights that are trained.
        mesh: of the devices, with the axis `AXIS`.

    Call:
        A dict of arrays whose number of rows is a multiple of that of the devices. Returns the model's outputs.
    """

    get_concrete_function = None
    """By this attribute `detect_function` sees that nothing is left to compile."""

    def __init__(self, model: keras.Model, mesh: jax.sharding.Mesh):
        self._variables = list(model.variables)
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._shared = NamedSharding(mesh, PartitionSpec(AXIS))
        self._seen: list[Any] = []
        self._placed: list[Any] = []

        def run(values: list[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
            with keras.StatelessScope(list(zip(self._variables, values, strict=True))):
                return model(inputs, training=False)

        rows = PartitionSpec(AXIS)
        shared = jax.shard_map(run, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False)
        self._run = jax.jit(shared)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the outputs for all rows, in their order."""
        outputs = self._run(self._weights(), jax.device_put(dict(inputs), self._shared))
        return {name: np.asarray(value) for name, value in outputs.items()}

    def _weights(self) -> list[Any]:
        """Returns the weights on all devices; they are copied there once, as long as nobody assigns others."""
        values = [variable.value for variable in self._variables]
        if len(values) != len(self._seen) or any(a is not b for a, b in zip(values, self._seen, strict=True)):
            self._seen, self._placed = values, jax.device_put(values, self._everywhere)
        return self._placed
