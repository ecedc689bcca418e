"""Runs a detector on all replicas of this process at once, one batch for each."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kfpn.evaluation.source_pass import detect_function


def local_devices(strategy: tf.distribute.Strategy) -> tuple[str, ...]:
    """Returns the devices of the replicas that run in this process."""
    return tuple(strategy.extended.worker_devices)


class ReplicaDetector:
    """Gives each replica of this process its rows of a batch, and puts the outputs together in the order of the rows.

    A replica's rows are a batch of their own: what it computes for them does not depend on how many replicas there are. No
    replica waits for another one and none for another process, so one worker of several can evaluate alone.

    Args:
        model: a detector over variables that were made in the strategy's scope.
        strategy: from `make_strategy`.
        jit_compile: compile with XLA, once for each shape of a replica's batch.

    Call:
        A dict of tensors whose number of rows is a multiple of `replicas`. Returns the model's outputs, as tensors.

    Attributes:
        replicas: number of replicas in this process.
    """

    def __init__(self, model: Callable, strategy: tf.distribute.Strategy, jit_compile: bool = False) -> None:
        self.replicas = len(local_devices(strategy))
        self._strategy = strategy
        one = detect_function(model, jit_compile) if jit_compile else model

        @tf.function(autograph=False)
        def run(inputs: dict[str, Any]) -> dict[str, tuple[tf.Tensor, ...]]:
            outputs = strategy.run(one, args=(inputs,))
            return {name: strategy.experimental_local_results(value) for name, value in outputs.items()}

        self._run = run
        # By this attribute `detect_function` sees that nothing is left to compile.
        self.get_concrete_function = run.get_concrete_function

    def __call__(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the model's outputs for all rows, in their order."""
        shares = {name: self._shared(value) for name, value in inputs.items()}
        return {name: tf.concat(values, axis=0) for name, values in self._run(shares).items()}

    def _shared(self, value: tf.Tensor) -> Any:
        parts = iter(tf.split(value, self.replicas))
        return self._strategy.experimental_distribute_values_from_function(lambda _: next(parts))
