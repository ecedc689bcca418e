"""The processes of a run among themselves: who writes, what they agree on, and what happens when one of them dies."""

import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import tensorflow as tf

PROBE_SECONDS = 2.0
"""Between two looks at the other workers."""
PROBE_TIMEOUT = 5.0
"""After so many seconds a connection that is neither made nor refused counts as a failure."""
FAILURES = 3
"""So many failures in a row, and a worker is gone."""
BLAME_SECONDS = 30.0
"""How long an error of TensorFlow waits for the watch to name the worker that is gone."""
LOST = 3
"""Exit code of a process that stopped because another one is gone."""


class Cluster:
    """The worker processes of a strategy; with one process everything here answers at once.

    Args:
        strategy: from `make_strategy`; None: this process is alone.

    Attributes:
        index: int, of this worker; 0 is the chief, which alone writes.
        workers: their addresses host:port, in order; one process has none.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self.index = 0
        self.workers: list[str] = []
        self._over = threading.Event()
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            self.index = int(resolver.task_id or 0)
            self.workers = list(resolver.cluster_spec().job_tasks("worker"))
            if len(self.workers) > 1:
                self._sum = tf.function(partial(_sum, strategy, len(self.workers)), autograph=False)

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return len(self.workers) > 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the work directory."""
        return self.index == 0

    def gather(self, value: int) -> list[int]:
        """Returns what each worker passed, in order; waits for all. Every worker has to call it at the same point.

        Args:
            value: below 2^53 in size.
        """
        if not self.several:
            return [value]
        row = np.zeros(len(self.workers), np.float64)
        row[self.index] = value
        return [round(v) for v in self._sum(tf.constant(row)).numpy()]

    def any(self, flag: bool) -> bool:
        """Whether some worker says yes; waits for all."""
        return any(self.gather(int(flag)))

    def require_same(self, what: str, value: str | int, hint: str) -> None:
        """Checks that all workers have the same value as the chief.

        Raises:
            ValueError: on every worker, naming the first that differs.
        """
        number = value if isinstance(value, int) else zlib.crc32(value.encode())
        numbers = self.gather(number)
        for index, other in enumerate(numbers):
            if other != numbers[0]:
                got = f": {other} and {numbers[0]}" if isinstance(value, int) else ""
                raise ValueError(
                    f"{what} must be the chief's on every worker, got another on {self.name(index)}{got}; {hint}"
                )

    def name(self, index: int) -> str:
        """Returns `worker 1 (host:port)`."""
        return f"worker {index} ({self.workers[index]})"

    def watch(self) -> None:
        """Looks at the other workers from now on; when one is gone, says which, and ends this process with code 3.

        A worker's TensorFlow server listens as long as its process lives. The thread ends the process because the main
        thread may be waiting inside TensorFlow for the one that is gone.
        """
        if self.several:
            threading.Thread(target=self._watch, daemon=True, name="watch").start()

    def leave(self) -> None:
        """Waits until all workers are here, and stops watching: from now on they may end in any order."""
        if self.several:
            self.gather(0)
            self._over.set()
            self.gather(0)

    def lost(self, error: Exception) -> ValueError:
        """Waits for the watch to end the process, when TensorFlow was quicker to notice; else returns what to raise."""
        time.sleep(BLAME_SECONDS)
        first = str(error).strip().splitlines() or [type(error).__name__]
        return ValueError(f"workers must stay in touch, got: {first[0]}; start all of them again")

    def _watch(self) -> None:
        failures = dict.fromkeys(set(range(len(self.workers))) - {self.index}, 0)
        while not self._over.wait(PROBE_SECONDS):
            for index in failures:
                why = _probe(self.workers[index])
                failures[index] = failures[index] + 1 if why else 0
                if failures[index] >= FAILURES and not self._over.is_set():
                    _end(
                        f"{self.name(index)} is gone: {why}; start all workers again, they go on from the last checkpoint"
                    )


def _sum(strategy: tf.distribute.Strategy, workers: int, row: tf.Tensor) -> tf.Tensor:
    """Returns the sum of a row over all workers."""

    def add(row: tf.Tensor) -> tf.Tensor:
        # A new tensor, for it has this replica's device. Each of a worker's replicas adds its share of the worker's row.
        share = tf.identity(row) / tf.cast(strategy.num_replicas_in_sync // workers, row.dtype)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, share)

    return strategy.experimental_local_results(strategy.run(add, args=(row,)))[0]


def _probe(address: str) -> str | None:
    """Returns why a worker can't be reached; None: it can."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_TIMEOUT):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _end(message: str, leave: Callable[[int], None] = os._exit) -> None:
    print(f"kfpn: error: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    leave(LOST)
