"""Listens on a port as long as this process lives, so that other workers see that it does, and sees when the chief ends."""

import contextlib
import errno
import socket
import threading
from collections.abc import Iterable

_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_CHIEF = b"kfpn chief\n"
"""What the chief says on a connection that it holds until it ends."""
_SECONDS = 5.0
"""Longest time for a connection, and for its first words."""


class OpenPort:
    """Accepts connections on a port of all interfaces, and closes each at once, but for the chief's, which lasts as long as the chief.

    Args:
        port: that is free.

    Attributes:
        any_address: the address of all interfaces, `[::]` or, on a machine without IPv6, `0.0.0.0`.
        chief_left: is set when the chief's connection has ended.

    Raises:
        OSError: if the port can't be listened on.
    """

    def __init__(self, port: int):
        self.any_address = "[::]"
        self.chief_left = threading.Event()
        try:
            if not socket.has_dualstack_ipv6():
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            self._server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
            self._server = socket.create_server(("", port))
            self.any_address = "0.0.0.0"
        self._thread = threading.Thread(target=self._accept, daemon=True, name="open port")
        self._thread.start()

    def close(self) -> None:
        """Stops to listen: from now on connections are refused."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # This ends the waiting of the thread.
        self._server.close()
        self._thread.join(_SECONDS)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._hear, args=(connection,), daemon=True, name="connection").start()

    def _hear(self, connection: socket.socket) -> None:
        """Closes a connection: the chief's when the chief has ended."""
        with connection:
            try:
                connection.settimeout(_SECONDS)
                if connection.recv(len(_CHIEF)) != _CHIEF:
                    return
                connection.settimeout(None)
                connection.recv(1)
            except OSError:
                return  # What breaks a connection may stand between the machines: the chief need not have ended.
        self.chief_left.set()


def held_connections(addresses: Iterable[str]) -> list[socket.socket]:
    """Returns connections of the chief to the ports of other workers, without those that can't be reached."""
    held = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host.strip("[]"), int(port)), _SECONDS)
            connection.sendall(_CHIEF)
            held.append(connection)
    return held
