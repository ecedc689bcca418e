"""Listens on a port as long as this process lives, so that other workers can see that it does."""

import contextlib
import errno
import socket
import threading

_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class OpenPort:
    """Accepts connections on a port of all interfaces, and closes each at once.

    Args:
        port: that is free.

    Attributes:
        any_address: the address of all interfaces, `[::]` or, on a machine without IPv6, `0.0.0.0`.

    Raises:
        OSError: if the port can't be listened on.
    """

    def __init__(self, port: int):
        self.any_address = "[::]"
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
        self._thread.join(5.0)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                connection.close()
