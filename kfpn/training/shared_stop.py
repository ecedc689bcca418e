"""Ends the training of all workers after the same step, when a signal came to any of them."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from kfpn.training.distribution.cluster import Cluster
from kfpn.training.interrupt import Interruption
from kfpn.training.optimizer import STOP, Optimizer


class SharedStop:
    """Knows whether the workers stop before the next step.

    With several workers the wish to stop is a scalar of the step's own sum over replicas. It is looked at one step later,
    while that step is under way: so no worker waits for another one, and all of them see it at the same step.

    Args:
        cluster: the processes that train together.
        optimizer: of the run, which carries the wish into the step.
    """

    def __init__(self, cluster: Cluster, optimizer: Optimizer):
        self.cluster = cluster
        self.optimizer = optimizer
        self._asked = False
        self._met = False
        self._steps: list[Future] = []
        # A step's sum is waited for in a thread, which begins before the next step is started: on a GPU the wait is then for
        # that step alone.
        self._reader = ThreadPoolExecutor(1, "stop") if cluster.several else None

    def step(self, train: Callable[[Any], dict[str, Any]], batch: Any, stop: Interruption) -> dict[str, Any]:
        """Takes a step, which asks all workers to stop if a signal came to this one, without waiting for it.

        Args:
            train: the step, of `build_train_step`.
            batch: its batch.
            stop: of this process.

        Returns:
            The scalars of the step, without `STOP`.
        """
        if self._reader is not None and stop.signal is not None and not self._asked:
            self._asked = True
            self.optimizer.request_stop()
        values = train(batch)
        if self._reader is not None:
            self._steps.append(self._reader.submit(float, values[STOP]))
        return {name: value for name, value in values.items() if name != STOP}

    def meet(self, stop: Interruption) -> None:
        """Waits for all workers, and has them stop here if a signal came to any: after what takes long on one of them."""
        self._met = self.cluster.any(stop.signal is not None)

    def forget(self) -> None:
        """Forgets the steps so far, which are taken again."""
        self._steps.clear()

    def wanted(self, stop: Interruption) -> bool:
        """Tells whether to stop now; all workers get the same answer."""
        if not self.cluster.several:
            return stop.signal is not None
        wanted = self._met
        while len(self._steps) > 1:
            wanted |= self._steps.pop(0).result() > 0.0
        return wanted

    def saves_at_exit(self, stop: Interruption) -> bool:
        """Tells whether a checkpoint that is due can be left out, because the run stops before the next step."""
        return not self.cluster.several and stop.signal is not None
