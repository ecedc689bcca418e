"""Serves the page of the demo on this machine until it is stopped."""

import contextlib
import errno
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfpn.demo.closed_page import ClosedPage
from kfpn.demo.quiet_gradio import quiet_gradio, without_proxy

if TYPE_CHECKING:
    from kfpn.demo.demo_detector import DemoDetector

ALL_HOSTS = ("0.0.0.0", "::")
"""Stand for each address that this machine has."""


def free_port(host: str, port: int) -> int:
    """Checks that a server can listen at a port.

    Args:
        host: name or address of this machine.
        port: 0..65535; 0 stands for any free one.

    Returns:
        The port.

    Raises:
        ValueError: naming the option, if the host is not of this machine, or the port is not free.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(
            f"host must be a name or an address of this machine, got {host!r}: {error.strerror}"
        ) from error
    with socket.socket(family, kind, protocol) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ValueError(
                    f"port must be free, got {port}, at which another program listens: give another --port, or 0 for any free one"
                ) from error
            if error.errno == errno.EACCES:
                raise ValueError(
                    f"port must be one that you may listen at, got {port}: take one from 1024 on"
                ) from error
            raise ValueError(
                f"host must be a name or an address of this machine, got {host!r}: {error.strerror}"
            ) from error
        return listening.getsockname()[1]


@contextlib.contextmanager
def served_demo(detector: "DemoDetector", host: str, port: int, min_score: float) -> Iterator[str]:
    """Serves the page in threads of their own while a `with` block runs.

    All pictures of its users lie in a folder that is removed at the end.

    Args:
        detector: looks at the pictures.
        host: name or address of this machine.
        port: see `free_port`; not 0.
        min_score: where the slider stands at first, 0..1.

    Yields:
        The address of the page.

    Raises:
        ValueError: if Gradio is not installed.
    """
    quiet_gradio()
    from starlette.middleware import Middleware

    from kfpn.demo.demo_page import PageAnswers, build_page

    without_proxy(host)
    with tempfile.TemporaryDirectory(prefix="kfpn-demo-") as folder, _temporary_files(folder):
        page = build_page(PageAnswers(detector, Path(folder)), min_score)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            page.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                app_kwargs={"middleware": [Middleware(ClosedPage)]},
                **LAUNCH,
            )
        try:
            yield page_address(host, port)
        finally:
            page.close(verbose=False)


LAUNCH: dict[str, Any] = {
    "share": False, "inbrowser": False, "inline": False, "prevent_thread_lock": True, "quiet": True, "show_error": True,
    "ssr_mode": False, "mcp_server": False, "pwa": False, "enable_monitoring": False, "footer_links": [],
}  # fmt: skip
"""What Gradio is told not to do: no link from outside, no program of its own, no pages beside the page."""


def page_address(host: str, port: int) -> str:
    """Returns what to write into a browser on this machine."""
    name = "127.0.0.1" if host in ALL_HOSTS else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


@contextlib.contextmanager
def _temporary_files(folder: str) -> Iterator[None]:
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def wait_until_stopped() -> None:
    """Waits for Ctrl-C, or for the signal by which systems stop a program.

    Raises:
        KeyboardInterrupt: when it comes.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Event().wait()
