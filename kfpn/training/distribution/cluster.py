"""Connects the processes of a run: they know which one writes, compare values, and stop when one of them dies."""

import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

PROBE_SECONDS = 2.0
"""Time between two attempts to connect to the other workers."""
PROBE_TIMEOUT = 5.0
"""Seconds after which a connection that is neither made nor refused counts as a failure."""
FAILURES = 3
"""Number of failures in a row after which a worker counts as gone."""
BLAME_SECONDS = 30.0
"""Seconds that an error of TensorFlow or JAX waits for the watching thread to name the worker that is gone."""
EXIT_WORKER_LOST = 3
"""Exit code of a process that stopped because another worker is gone."""


class Cluster:
    """Connects the worker processes of a strategy; with one process every method returns at once. Those of JAX: `JaxCluster`.

    Args:
        strategy: from `make_strategy`; None: this process is alone.

    Attributes:
        index: int, number of this worker; 0 is the chief, the only one that writes.
        workers: list of addresses host:port in the workers' order; empty for one process.
        errors: what TensorFlow or JAX raises where a worker is gone; empty for one process.
    """

    def __init__(self, strategy: "tf.distribute.Strategy | None" = None):
        self.index = 0
        self.workers: list[str] = []
        self._over = threading.Event()
        self._sum: Callable[[np.ndarray], np.ndarray] = np.array
        self.errors: tuple[type[Exception], ...] = ()
        if strategy is None:  # TensorFlow need not be there.
            return
        import tensorflow as tf

        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            self.index = int(resolver.task_id or 0)
            self.workers = list(resolver.cluster_spec().job_tasks("worker"))
            if len(self.workers) > 1:
                add = tf.function(partial(_sum_over_workers, strategy, len(self.workers)), autograph=False)
                self._sum = lambda row: add(tf.constant(row)).numpy()
                self.errors = (tf.errors.OpError,)

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return len(self.workers) > 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the work directory."""
        return self.index == 0

    def gather(self, value: int) -> list[int]:
        """Returns the value that each worker passed, in the workers' order.

        It waits for all workers: every worker has to call it at the same point.

        Args:
            value: below 2^53 in size, because it travels as float64.
        """
        if not self.several:
            return [value]
        row = np.zeros(len(self.workers), np.float64)
        row[self.index] = value
        return [round(v) for v in self._sum(row)]

    def any(self, flag: bool) -> bool:
        """Tells whether any worker passed True; waits for all workers."""
        return any(self.gather(int(flag)))

    def require_same(self, what: str, value: str | int, hint: str) -> None:
        """Checks that all workers have the same value as the chief; waits for all workers.

        Args:
            what: name of the value, for the error.
            value: of this worker; of text, checksums are compared.
            hint: what to do about a difference, for the error.

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
        """Starts a thread that ends this process with code 3 when another worker is gone, and says which one.

        A worker listens as long as its process lives: its TensorFlow server, or what `kfpn.training.backends.jax_workers` opens. The
        thread ends the process because the main thread may be waiting inside TensorFlow or JAX for the worker that is gone.
        """
        if self.several:
            threading.Thread(target=self._watch, daemon=True, name="watch").start()

    def leave(self) -> None:
        """Waits for all workers and stops watching them: after this they may end in any order."""
        if self.several:
            self.gather(0)
            self._over.set()
            self.gather(0)

    def blames_worker(self, error: Exception) -> bool:
        """Tells whether an error may say that another worker is gone."""
        return isinstance(error, self.errors)

    def lost(self, error: Exception) -> ValueError:
        """Returns the error to raise when TensorFlow or JAX fails, after it gave the watching thread time to end the process."""
        time.sleep(BLAME_SECONDS)
        first = str(error).strip().splitlines() or [type(error).__name__]
        return ValueError(f"workers must stay in touch, got: {first[0]}; start all of them again")

    def _watch(self) -> None:
        failures = dict.fromkeys(set(range(len(self.workers))) - {self.index}, 0)
        while not self._over.wait(PROBE_SECONDS):
            for index in failures:
                reason = reason_out_of_reach(self.workers[index])
                failures[index] = failures[index] + 1 if reason else 0
                if failures[index] >= FAILURES and not self._over.is_set():
                    exit_with_error(
                        f"{self.name(index)} is gone: {reason}; start all workers again, they go on from the last checkpoint"
                    )


def _sum_over_workers(strategy: "tf.distribute.Strategy", workers: int, row: Any) -> Any:
    """Returns the sum of a row over all workers.

    Args:
        strategy: of the run.
        workers: number of workers.
        row: (workers,) float64.
    """

    import tensorflow as tf

    def add(row: Any) -> Any:
        # The identity makes a tensor on this replica's device. Each replica of a worker adds its share of the worker's row.
        share = tf.identity(row) / tf.cast(strategy.num_replicas_in_sync // workers, row.dtype)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, share)

    return strategy.experimental_local_results(strategy.run(add, args=(row,)))[0]


def reason_out_of_reach(address: str) -> str | None:
    """Returns the reason why a worker can't be reached; None: it can be reached."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_TIMEOUT):
            return None
    except OSError as error:
        return error.strerror or str(error)


def exit_with_error(message: str) -> None:
    """Ends this process with code 3, whatever its threads do."""
    print(f"kfpn: error: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(EXIT_WORKER_LOST)
