"""Takes the steps of a run by JAX: a compiled function of the whole state, with the batch shared between devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import ops

from kfpn.config.run import Config
from kfpn.training.backends.jax_batches import split_noise, trained_arrays
from kfpn.training.backends.jax_placement import Placement
from kfpn.training.optimizer import STOP, Optimizer


class JaxStep:
    """Trains on one batch.

    The state is that of Keras' variables: each step reads it from them and gives it back. Losses and gradients are sums over the
    images of all devices; a device has the images r x B / n to (r + 1) x B / n of a batch of B, and computes them in
    `config.accumulate` equal parts, one after the other. Statistics of batch norms are those of the whole batch, or of all devices'
    part of it.

    Args:
        submodels: of the detector; `.weights_model` holds every variable.
        config: the run's.
        optimizer: of `submodels.weights_model.trainable_variables`.
        mesh: of the devices of all processes, see `kfpn.training.backends.jax_placement.Placement`.
        losses: (submodels, config, batch, noise) -> losses of each image.

    Call:
        A batch of `JaxBackend.batches`. Returns scalar float32 arrays without waiting for the devices: each loss and their sum `loss`
        (means over the batch), `grad_norm`, `lr`, `skipped`, which is 1 where the step was refused, and with several processes
        `STOP`, which is above 0 where one of them asks all to stop.
    """

    def __init__(
        self, submodels: Any, config: Config, optimizer: Optimizer, mesh: jax.sharding.Mesh, losses: Callable[..., Any]
    ):
        self.submodels = submodels
        self.config = config
        self.optimizer = optimizer
        self.losses = losses
        model = submodels.weights_model
        self.trainable: list[keras.Variable] = list(model.trainable_variables)
        self.others: list[keras.Variable] = list(model.non_trainable_variables)
        self.variables = [*self.trainable, *self.others, *optimizer.state]
        self._place = Placement(mesh, self.variables)
        self._step = jax.jit(self._compute, donate_argnums=0, out_shardings=self._place.everywhere)
        self._before: Any = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Takes a step."""
        arrays = trained_arrays(batch)
        if self._place.several:
            arrays[STOP] = np.full(len(arrays["images"]), self.optimizer.asks_to_stop, np.float32)
        placed, state = self._place.batch(arrays), self._place.state()
        if self._before is not None:
            self._before.block_until_ready()  # More than one step ahead would only hold more batches.
        results, state = self._step(state, placed)
        self._before = results["loss"]
        self._place.keep(state)
        return self._place.results(results)

    def _compute(self, state: list[Any], batch: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Returns the results of a step, and the state after it."""
        known = list(zip(self.variables, state, strict=True))
        asked = {STOP: jnp.sum(batch[STOP])} if STOP in batch else {}
        batch = {name: value for name, value in batch.items() if name != STOP}
        first, last = len(self.trainable), len(self.trainable) + len(self.others)
        with keras.StatelessScope(known):
            scale = self.optimizer.loss_scale
        values, gradients, moved = self._sum_of_parts(state[:first], state[first:last], scale, batch)
        with keras.StatelessScope(known) as scope:
            results = self.optimizer.update(gradients, values["loss"])
            applied = results.pop("applied")
            after = [scope.get_current_value(variable) for variable in self.variables]
        # The forward pass moved the statistics of batch norms. A refused step may have moved them to NaN.
        kept = [jnp.where(applied, new, old) for new, old in zip(moved, state[first:last], strict=True)]
        return {**values, **results, **asked}, [*after[:first], *kept, *after[last:]]

    def _sum_of_parts(
        self, weights: list[Any], others: list[Any], scale: Any, batch: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Any], list[Any]]:
        """Returns losses and gradients of a batch, summed over its parts, and the statistics after the last of them."""
        parts = self.config.accumulate
        if parts == 1:
            return self._backward(weights, others, scale, batch)

        def add(so_far: tuple[Any, list[Any]], part: dict[str, Any]) -> tuple[tuple[Any, list[Any]], None]:
            sums, statistics = so_far
            values, gradients, moved = self._backward(weights, statistics, scale, part)
            return (jax.tree.map(jnp.add, sums, (values, gradients)), moved), None

        # A part takes every parts-th image, as `kfpn.training.step.accumulate` says.
        stacked = {
            name: jnp.swapaxes(value.reshape(-1, parts, *value.shape[1:]), 0, 1) for name, value in batch.items()
        }
        shapes = jax.eval_shape(self._backward, weights, others, scale, {name: v[0] for name, v in stacked.items()})
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes[:2])
        ((values, gradients), moved), _ = jax.lax.scan(add, (zeros, others), stacked)
        return values, gradients, moved

    def _backward(
        self, weights: list[Any], others: list[Any], scale: Any, batch: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Any], list[Any]]:
        """Returns losses and their sum, gradients of the loss scale times the sum, and the statistics as the forward pass moved them."""

        def scaled(weights: Sequence[Any]) -> tuple[Any, tuple[dict[str, Any], list[Any]]]:
            known = zip([*self.trainable, *self.others], [*weights, *others], strict=True)
            with keras.StatelessScope(list(known)) as scope:
                losses = self.losses(self.submodels, self.config, *split_noise(batch))
                moved = [scope.get_current_value(variable) for variable in self.others]
            values = {
                name: ops.sum(ops.cast(value, "float32")) / self.config.batch_size for name, value in losses.items()
            }
            values["loss"] = sum(values.values())
            return values["loss"] * scale, (values, moved)

        (_, (values, moved)), gradients = jax.value_and_grad(scaled, has_aux=True)(weights)
        return values, gradients, moved
