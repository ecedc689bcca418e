"""Puts batches and the state of steps onto the devices of a run, of this process or of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kfpn.training.backends.jax_cluster import chosen_of_chief

AXIS = "images"
"""Name of the axis of a mesh over which the images of a batch are shared."""


class Placement:
    """Puts a batch onto the devices in equal shares, and the state of the steps onto each of them.

    With several processes no variable holds an array of all devices, but this process's own copy of it: all that is done between
    steps, such as an evaluation on the chief, then waits for no other process.

    Args:
        mesh: of the devices, with the axis `AXIS`; those of a process stand one behind the other.
        variables: the state.

    Attributes:
        several: whether the devices belong to several processes.
        everywhere: the sharding of the state: a copy on each device.
    """

    def __init__(self, mesh: jax.sharding.Mesh, variables: Sequence[keras.Variable]):
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self._shared = NamedSharding(mesh, PartitionSpec(AXIS))
        self._variables = variables
        self._own = list(mesh.local_devices)
        self.several = len(self._own) < mesh.size
        self._seen: list[Any] = []
        self._placed: list[Any] = []

    def batch(self, arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Returns the global batch on all devices.

        Args:
            arrays: what this process has loaded of it.
        """
        if not self.several:
            return jax.device_put(dict(arrays), self._shared)
        return {name: jax.make_array_from_process_local_data(self._shared, value) for name, value in arrays.items()}

    def state(self) -> list[jax.Array]:
        """Returns the values of the variables on all devices. The first time all processes take the chief's."""
        values = [variable.value for variable in self._variables]
        if not self.several:
            return jax.device_put(values, self.everywhere)
        if not self._seen:
            return [self._spread(value) for value in chosen_of_chief([np.asarray(value) for value in values])]
        pairs = zip(values, self._seen, self._placed, strict=True)
        return [placed if value is seen else self._spread(value) for value, seen, placed in pairs]

    def keep(self, state: Sequence[jax.Array]) -> None:
        """Gives the variables the values after a step."""
        own = [value.addressable_data(0) for value in state] if self.several else state
        for variable, value in zip(self._variables, own, strict=True):
            variable.assign(value)
        if self.several:
            self._seen, self._placed = [variable.value for variable in self._variables], list(state)

    def results(self, values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns the scalars of a step as this process has them, without waiting for them."""
        return {name: value.addressable_data(0) for name, value in values.items()} if self.several else dict(values)

    def _spread(self, value: Any) -> jax.Array:
        shards = [jax.device_put(value, device) for device in self._own]
        return jax.make_array_from_single_device_arrays(shards[0].shape, self.everywhere, shards)
