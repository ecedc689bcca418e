"""Connects the processes of a run on JAX: sums over them, and their ends."""

import atexit
import contextlib
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kfpn.training.backends.open_port import OpenPort
from kfpn.training.distribution.cluster import Cluster, reason_out_of_reach

LINGER_SECONDS = 10.0
"""Time that the chief waits at its end for the others to end: JAX ends them as failed when the chief is gone."""
_STATUS = re.compile(r"(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")
_HALF = 2**31
_WORKERS = "workers"


class JaxCluster(Cluster):
    """Connects the processes that `jax.distributed` has brought together, see `Cluster`.

    Args:
        index: number of this process.
        workers: addresses host:port, or other names where JAX has found the processes by itself.
        port: on which this process listens or, in worker 0, has listened before JAX does; None: the workers have no addresses, and
            JAX itself ends those that are left when one dies.
    """

    def __init__(self, index: int = 0, workers: Sequence[str] = (), port: OpenPort | None = None):
        super().__init__()
        self.index = index
        self.workers = list(workers)
        if self.several:
            self.errors = (jax.errors.JaxRuntimeError,)
        self._port = port
        self._sum = _integers_added
        self._ended = not self.several
        if self.several and port is not None:
            super().watch()  # The first sum may wait for a worker that is gone.
            atexit.register(self._end)

    def watch(self) -> None:
        """Does nothing: the other workers have been watched since they came."""

    def blames_worker(self, error: Exception) -> bool:
        """Tells whether an error may say that another worker is gone: JAX has a type for it, or begins it with the name of a status."""
        return super().blames_worker(error) or (self.several and _STATUS.match(str(error)) is not None)

    def leave(self) -> None:
        """Waits for all workers, and leaves JAX's service: after this they may end in any order."""
        super().leave()
        self._end()

    def _end(self) -> None:
        """Leaves JAX's service, the chief as the last."""
        if self._ended:
            return
        self._ended = True
        self._over.set()
        if self._port is None:
            return
        last = time.monotonic() + LINGER_SECONDS
        others = [address for i, address in enumerate(self.workers) if i != self.index]
        while self.is_chief and time.monotonic() < last and not all(map(reason_out_of_reach, others)):
            time.sleep(0.1)
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # Where others have died, what counts has been said.
            jax.distributed.shutdown()
        self._port.close()


def _integers_added(row: np.ndarray) -> np.ndarray:
    """Returns the sum over all processes of a row (W,) float64 of integers below 2^53, which JAX adds in halves of 32 bits."""
    high, low = np.divmod(row.astype(np.int64), _HALF)
    (sums,) = added_over_processes([np.stack([high, low]).astype(np.int32)])
    return sums[0].astype(np.float64) * _HALF + sums[1]


def chosen_of_chief(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the chief's values on every process; all processes have to call it with values of the same shapes."""
    chief = jax.process_index() == 0
    return added_over_processes([value if chief else np.zeros_like(value) for value in values])


def added_over_processes(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns sums of arrays over all processes, each in its dtype; all processes have to call it at the same point.

    Args:
        values: of dtypes that JAX has, of the same shapes on all processes.
    """
    first = {device.process_index: device for device in sorted(jax.devices(), key=lambda device: -device.id)}
    mesh = jax.sharding.Mesh(np.array([first[index] for index in sorted(first)]), (_WORKERS,))
    each, whole = NamedSharding(mesh, PartitionSpec(_WORKERS)), NamedSharding(mesh, PartitionSpec())
    placed = [jax.make_array_from_process_local_data(each, value[None]) for value in values]
    sums = jax.jit(_rows_added, out_shardings=whole)(placed)
    return [np.asarray(value.addressable_data(0)) for value in sums]


def _rows_added(values: list[Any]) -> list[Any]:
    return [jnp.sum(value, axis=0, dtype=value.dtype) for value in values]
