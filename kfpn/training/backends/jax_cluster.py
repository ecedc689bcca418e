"""Connects the processes of a run on JAX: sums over them, and their ends."""

import atexit
import contextlib
import re
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kfpn.training.backends.open_port import OpenPort, held_connections
from kfpn.training.distribution.cluster import Cluster, exit_with_error, reason_out_of_reach

LINGER_SECONDS = 20.0
"""Time that the chief waits at its end for the others to end: JAX aborts them when the chief is gone."""
OWN_END_SECONDS = 5.0
"""Time that a worker whose chief ends has to come to its own end: an error may be that of all workers."""
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
        self._held: list[socket.socket] = []
        if self.several and port is not None:
            super().watch()  # The first sum may wait for a worker that is gone.
            if self.is_chief:
                self._held = held_connections(self._others)
            else:
                threading.Thread(target=self._follow_chief, args=(port,), daemon=True, name="chief").start()
            atexit.register(self._end)

    @property
    def _others(self) -> list[str]:
        return [address for index, address in enumerate(self.workers) if index != self.index]

    def _follow_chief(self, port: OpenPort) -> None:
        """Ends this process when the chief has come to an end of its own."""
        port.chief_left.wait()
        if not self._over.wait(OWN_END_SECONDS):
            exit_with_error(
                f"{self.name(0)} has ended: its own lines say why; start all workers again when that is mended"
            )

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
        for connection in self._held:
            connection.close()
        last = time.monotonic() + LINGER_SECONDS
        while self.is_chief and time.monotonic() < last and not all(map(reason_out_of_reach, self._others)):
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
