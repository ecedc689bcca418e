"""Trains by TensorFlow: on one device, on several, and in several processes (tf.distribute)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

import keras
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.data.pipeline import named_errors
from kfpn.data.plan import BatchShare
from kfpn.data.record import Source
from kfpn.evaluation.compilation import worth_compiling
from kfpn.evaluation.source_pass import detect_function
from kfpn.training.determinism import with_determinism
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.replica_batches import distributed_batches
from kfpn.training.distribution.replica_detector import ReplicaDetector, local_devices
from kfpn.training.distribution.run_strategy import make_run_strategy, split_cpu, with_norms_of_batch
from kfpn.training.distribution.strategy import describe_strategy, replica_batch_size
from kfpn.training.exact_masks import run_functions
from kfpn.training.optimizer import Optimizer
from kfpn.training.run_data import RunData
from kfpn.training.sampler_noise import with_noise
from kfpn.training.step import build_train_step, local_shape
from kfpn.training.step_plan import MOST_EVALUATIONS


@dataclass(frozen=True)
class TensorFlowBackend:
    """Trains by TensorFlow, see `kfpn.training.backends.training_backend.TrainingBackend`.

    Attributes:
        cluster: the processes that train together.
        given: the strategy; None: it is made once the data are open.
    """

    cluster: Cluster
    given: tf.distribute.Strategy | None

    @classmethod
    def started(cls, config: Config, strategy: tf.distribute.Strategy | None = None) -> Self:
        """Starts TensorFlow for a run; arguments as for `kfpn.training.backends.training_backend.open_backend`."""
        if strategy is None:
            split_cpu(config.cpu_devices)
            # This strategy has to be made before TensorFlow runs any op.
            strategy = make_run_strategy(config) if config.strategy == "multi_worker" else None
        return cls(Cluster(strategy), strategy)

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy of the run."""
        if self.given is None:
            raise ValueError("strategy must be made first, got none: call with_devices")
        return self.given

    def with_devices(self, config: Config) -> Self:
        """Returns the same with the strategy of a run."""
        strategy = self.given or make_run_strategy(config)
        replica_batch_size(strategy, config.batch_size, config.accumulate)
        return replace(self, given=strategy)

    def trained_config(self, config: Config) -> Config:
        """Returns the configuration with norms of the whole batch."""
        return with_norms_of_batch(config, self.strategy)

    def with_determinism(self, config: Config) -> Config:
        """Makes TensorFlow deterministic where the configuration asks for it."""
        return with_determinism(config)

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the strategy's scope."""
        return self.strategy.scope()

    def describe(self, config: Config) -> str:
        """Returns the first line of a run."""
        return describe_strategy(self.strategy, config.batch_size, config.accumulate)

    def train_step(self, submodels: Any, config: Config, optimizer: Optimizer) -> Callable[[Any], dict[str, Any]]:
        """Returns the step."""
        return build_train_step(submodels, config, optimizer, self.strategy, *run_functions(config))

    def batches(self, data: RunData, config: Config, start: int) -> Iterator[Any]:
        """Returns the distributed batches, with their noise."""
        _, noise_shapes = run_functions(config)

        def share_of(share: BatchShare) -> tf.data.Dataset:
            return with_noise(data.batches(config, start, share), config, noise_shapes)

        return named_errors(distributed_batches(self.strategy, share_of))

    def whole_batches(self, data: RunData, config: Config, start: int) -> Iterator[Mapping[str, Any]]:
        """Returns the global batches."""
        return iter(data.batches(config, start))

    def shares(self, batch: Any) -> list[Mapping[str, Any]]:
        """Returns what each replica of this process gets of a batch."""
        local = {name: self.strategy.experimental_local_results(value) for name, value in batch.items()}
        return [{name: values[i] for name, values in local.items()} for i in range(len(local["images"]))]

    def local_shape(self, batch: Any) -> tuple[int, ...]:
        """Returns the shape of the images of the first replica of this process."""
        return local_shape(batch, self.strategy)

    def detector(self, model: keras.Model, config: Config, source: Source) -> tuple[Callable, tuple[str, ...]]:
        """Returns a detector on all replicas of this process; on one where each has statistics of its own."""
        if self.strategy.num_replicas_in_sync > 1 and config.model.norm == "bn":
            return detect_function(model), ()  # The statistics of the first replica are saved.
        devices = local_devices(self.strategy)
        evaluations = MOST_EVALUATIONS if config.eval_every is None else -(-config.steps // config.eval_every)
        compiled = worth_compiling(source, config, devices=devices, times=evaluations)
        return ReplicaDetector(model, self.strategy, compiled), devices
