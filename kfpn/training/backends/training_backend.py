"""Says what a run needs of the library that computes its steps, and chooses the library."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self

import keras
import numpy as np

from kfpn.config.run import Config
from kfpn.data.record import Source
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.optimizer import Optimizer
from kfpn.training.run_data import RunData

if TYPE_CHECKING:
    import tensorflow as tf

RUN_BACKENDS = ("tensorflow", "jax")
"""The backends of Keras on which `kfpn train` runs."""


class TrainingBackend(Protocol):
    """Trains on the devices of a run."""

    @property
    def cluster(self) -> Cluster:
        """The processes that train together."""

    def with_devices(self, config: Config) -> Self:
        """Returns the same with the devices of a run, as many as can share its batch; `kfpn.train` calls it once.

        Raises:
            ValueError: if devices or options don't go together, or the devices can't share a batch.
        """

    def trained_config(self, config: Config) -> Config:
        """Returns the configuration that is trained on these devices; the work directory keeps the one that was given."""

    def with_determinism(self, config: Config) -> Config:
        """Makes the library add in a fixed order where the configuration asks for it, and returns what is then trained."""

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the `with` block in which the variables of a run are made."""

    def describe(self, config: Config) -> str:
        """Returns the first line of a run: strategy, replicas, devices and batch sizes."""

    def train_step(self, submodels: Any, config: Config, optimizer: Optimizer) -> Callable[[Any], dict[str, Any]]:
        """Returns the step: (batch of `batches`) -> scalars, see `kfpn.training.step.build_train_step`."""

    def batches(self, data: RunData, config: Config, start: int) -> Iterator[Any]:
        """Returns what the devices of this process get of the batches from step `start` on.

        Raises:
            ValueError: naming an image that can't be read, when its batch is asked for.
        """

    def whole_batches(self, data: RunData, config: Config, start: int) -> Iterator[Mapping[str, Any]]:
        """Returns the global batches from step `start` on, without noise."""

    def shares(self, batch: Any) -> list[Mapping[str, Any]]:
        """Returns what each replica of this process gets of a batch of `batches`."""

    def local_shape(self, batch: Any) -> tuple[int, ...]:
        """Returns the shape of the images that the first replica of this process gets of a batch."""

    def detector(
        self, model: keras.Model, config: Config, source: Source
    ) -> tuple[Callable[[dict[str, Any]], Mapping[str, np.ndarray]], tuple[str, ...]]:
        """Returns a detector as a function of batches on all devices of this process, and the names of these devices.

        Args:
            model: the padded detector, over the weights that are trained.
            config: the run's.
            source: of the images that it will be given.
        """


def open_backend(config: Config, strategy: "tf.distribute.Strategy | None" = None) -> TrainingBackend:
    """Starts the library that Keras runs on, for a run.

    Args:
        config: the run's.
        strategy: of TensorFlow, which shares the work between devices; None: as `config` says.

    Raises:
        ValueError: if the backend can't train a run, or options don't go with it.
    """
    require_run_backend(keras.backend.backend())
    if keras.backend.backend() == "jax":
        from kfpn.training.backends.jax_backend import JaxBackend

        if strategy is not None:
            raise ValueError(
                f"strategy must be None with KERAS_BACKEND=jax, got {type(strategy).__name__}, which is TensorFlow's: JAX takes the "
                "devices that config.strategy says"
            )
        return JaxBackend.started(config)
    from kfpn.training.backends.tensorflow_backend import TensorFlowBackend

    return TensorFlowBackend.started(config, strategy)


def require_run_backend(backend: str) -> None:
    """Checks that a run can be trained on a backend of Keras.

    Raises:
        ValueError: naming those that can.
    """
    if backend not in RUN_BACKENDS:
        raise ValueError(
            f"KERAS_BACKEND must be tensorflow or jax for kfpn train and kfpn.train, got {backend!r}: set it before Python starts, or train by "
            "kfpn.trainable(detector).fit"
        )
