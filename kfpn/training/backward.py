"""Computes losses and gradients of one replica's images, where there are several as one vector that is summed over them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.training.optimizer import STOP

LossesFunction = Callable[..., Any]
"""(submodels, config, batch, noise) -> dict of (B,) losses, see `kfpn.losses.training_losses.training_losses`."""


class Backward:
    """Computes the forward and the backward pass of a replica, with the variables of that replica as arguments.

    The variables are arguments so that one trace serves all replicas: what is traced once for 8 GPUs starts 8 times sooner.

    Args:
        submodels: of the detector; `.weights_model` holds every variable.
        config: the run's.
        losses: (submodels, config, batch, noise) -> losses of each image.
        computed: submodels over the same variables, in the form in which the losses are computed; None: `submodels`.
        packed: whether all results stand behind one another in one vector, which several replicas sum at once.

    Attributes:
        names: names of the losses, of their sum `loss` and of `STOP`, in the order in which they open the results; known after
            a call.
        moving: variables that the forward pass moves, the statistics of batch norms that train; known after a call.

    Call:
        variables: the replica's tf.Variable of each of `weights_model.variables`.
        controls: the loss scale, and 1 where this worker asks all to stop, else 0; scalar float32.
        batch, noise: name -> (B, ...), of this replica.

    Returns:
        The results: (L,) float32 of the losses (means over the global batch), their sum and the wish to stop, and then each gradient of
        the loss scale times the sum; `packed`: one vector (N,) of all that. And the values of `moving` from before the call.
    """

    def __init__(
        self, submodels: Any, config: Config, losses: LossesFunction, computed: Any = None, packed: bool = True
    ):
        self.packed = packed
        self.submodels = submodels if computed is None else computed
        self.config = config
        self.losses = losses
        model = submodels.weights_model
        self.trainable: list[keras.Variable] = list(model.trainable_variables)
        self.variables: list[keras.Variable] = [*self.trainable, *model.non_trainable_variables]
        self.names: list[str] = []
        self.moving: list[keras.Variable] = []

    def __call__(
        self,
        variables: Sequence[tf.Variable],
        controls: tuple[tf.Tensor, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        noise: Mapping[str, tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Computes losses and gradients, see the class."""
        scale, stop = controls
        before = [tf.convert_to_tensor(variable) for variable in variables]
        weights = before[: len(self.trainable)]
        # In this scope layers read the given values. What they assign is kept aside.
        with keras.StatelessScope(list(zip(self.variables, before, strict=True))) as scope, tf.GradientTape() as tape:
            known = [scope.get_current_value(variable) for variable in self.variables]
            tape.watch(weights)
            losses = self.losses(self.submodels, self.config, dict(batch), dict(noise))
            values = {
                name: tf.reduce_sum(tf.cast(value, tf.float32)) / self.config.batch_size
                for name, value in losses.items()
            }
            values["loss"] = tf.add_n(list(values.values()))
            scaled = values["loss"] * scale
            values[STOP] = stop
        gradients = tape.gradient(scaled, weights)
        unused = [v.path for v, gradient in zip(self.trainable, gradients, strict=True) if gradient is None]
        if unused:
            raise ValueError(f"every trainable variable must act on a loss, got none from {', '.join(unused)}")
        self.names = list(values)
        after = [scope.get_current_value(variable) for variable in self.variables]
        moved = [index for index, value in enumerate(after) if value is not known[index]]
        self.moving = [self.variables[index] for index in moved]
        for index in moved:
            variables[index].assign(after[index])
        results = [tf.stack(list(values.values())), *map(tf.convert_to_tensor, gradients)]
        if self.packed:
            results = [tf.concat([tf.reshape(result, [-1]) for result in results], axis=0)]
        return results, [before[index] for index in moved]

    def split(self, results: Sequence[tf.Tensor]) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns the losses and the gradients that results hold.

        Args:
            results: of a call, or a sum of such.
        """
        if not self.packed:
            first, *gradients = results
            return dict(zip(self.names, tf.unstack(first), strict=True)), gradients
        (vector,) = results
        sizes = [math.prod(variable.shape) for variable in self.trainable]
        first, *rows = tf.split(vector, [len(self.names), *sizes])
        gradients = [tf.reshape(row, v.shape) for row, v in zip(rows, self.trainable, strict=True)]
        return dict(zip(self.names, tf.unstack(first), strict=True)), gradients
