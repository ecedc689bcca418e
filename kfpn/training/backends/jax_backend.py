"""Trains by JAX: on one device, on all devices of this machine, or on those of several processes, which share each batch."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import keras
import numpy as np

from kfpn.config.run import Config
from kfpn.data.plan import BatchShare
from kfpn.data.record import Source
from kfpn.training.backends.jax_batches import made_ahead, with_run_noise
from kfpn.training.backends.jax_detector import JaxDetector
from kfpn.training.backends.jax_devices import (
    choose_devices,
    device_name,
    require_determinism_of_jax,
    require_options_of_jax,
    split_cpu_of_jax,
)
from kfpn.training.backends.jax_placement import AXIS
from kfpn.training.backends.jax_step import JaxStep
from kfpn.training.backends.jax_workers import join_workers
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.equal_shares import describe_shares
from kfpn.training.exact_masks import run_functions
from kfpn.training.optimizer import Optimizer
from kfpn.training.run_data import RunData


@dataclass(frozen=True)
class JaxBackend:
    """Trains by JAX, see `kfpn.training.backends.training_backend.TrainingBackend`.

    Attributes:
        devices: of the run, in all processes; empty: they are chosen once the data are open.
        cluster: the processes that train together.
    """

    devices: tuple[jax.Device, ...] = ()
    cluster: Cluster = field(default_factory=Cluster)

    @classmethod
    def started(cls, config: Config) -> Self:
        """Starts JAX for a run.

        Raises:
            ValueError: if options don't go with JAX, or the workers don't come together.
        """
        require_options_of_jax(config)
        if config.strategy == "multi_worker":
            return cls(cluster=join_workers())
        split_cpu_of_jax(config.cpu_devices)
        return cls()

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices, along the axis `AXIS`."""
        return jax.sharding.Mesh(np.array(self.devices), (AXIS,))

    @property
    def own_devices(self) -> tuple[jax.Device, ...]:
        """The devices of this process."""
        return tuple(device for device in self.devices if device.process_index == jax.process_index())

    def with_devices(self, config: Config) -> Self:
        """Returns the same with the devices of a run."""
        require_options_of_jax(config)
        return replace(self, devices=choose_devices(config))

    def trained_config(self, config: Config) -> Config:
        """Returns the configuration with a compiled step: JAX runs no other. Batch norms take their statistics over all devices."""
        if config.jit_compile and config.compile in ("auto", "whole"):
            return config
        asked = config.compile if config.jit_compile else "off"
        warnings.warn(f"compile {asked} changes nothing with KERAS_BACKEND=jax: JAX compiles each step", stacklevel=3)
        return replace(config, jit_compile=True, compile="auto")

    def with_determinism(self, config: Config) -> Config:
        """Checks that XLA is deterministic where the configuration asks for it."""
        require_determinism_of_jax(config)
        return config

    def scope(self) -> AbstractContextManager[Any]:
        """Returns a block in which variables are made on the first device of this process."""
        return jax.default_device(self.own_devices[0])

    def describe(self, config: Config) -> str:
        """Returns the first line of a run."""
        names, cluster = ", ".join(map(device_name, self.own_devices)), self.cluster
        place = f"of JAX on {names}"
        if config.strategy == "multi_worker":
            place = f"of JAX in {len(cluster.workers)} worker(s); this is {cluster.name(cluster.index)} with {names}"
        return describe_shares(config.strategy, len(self.devices), place, config.batch_size, config.accumulate)

    def train_step(self, submodels: Any, config: Config, optimizer: Optimizer) -> Callable[[Any], dict[str, Any]]:
        """Returns the step."""
        losses, _ = run_functions(config)
        return JaxStep(submodels, config, optimizer, self.mesh, losses)

    def batches(self, data: RunData, config: Config, start: int) -> Iterator[Mapping[str, np.ndarray]]:
        """Returns this process's share of the global batches, with its noise, on the host."""
        _, noise_shapes = run_functions(config)
        share = BatchShare(self.cluster.index, max(1, len(self.cluster.workers)), len(self.devices))
        batches = data.numpy_batches(config, start, share)
        return made_ahead(with_run_noise(batch, config, noise_shapes) for batch in batches)

    def whole_batches(self, data: RunData, config: Config, start: int) -> Iterator[Mapping[str, np.ndarray]]:
        """Returns the global batches, on the host."""
        return data.numpy_batches(config, start)

    def shares(self, batch: Mapping[str, np.ndarray]) -> list[Mapping[str, np.ndarray]]:
        """Returns what each device of this process gets of a batch."""
        count = len(self.own_devices)
        size = len(batch["images"]) // count
        return [{name: value[i * size : (i + 1) * size] for name, value in batch.items()} for i in range(count)]

    def local_shape(self, batch: Mapping[str, np.ndarray]) -> tuple[int, ...]:
        """Returns the shape of the images of the first device of this process."""
        count, *rest = batch["images"].shape
        return (count // len(self.own_devices), *rest)

    def detector(self, model: keras.Model, config: Config, source: Source) -> tuple[Callable, tuple[str, ...]]:
        """Returns a detector on all devices of this process; JAX compiles it for each padded size."""
        mesh = jax.sharding.Mesh(np.array(self.own_devices), (AXIS,))
        return JaxDetector(model, mesh), tuple(map(device_name, self.own_devices))
