"""Carries out `kfpn demo`: serves a page in the browser to try a detector on."""

import dataclasses

from kfpn.config.checks import SHARE, check
from kfpn.data.decode_limits import MOST_PIXELS, require_max_pixels


@dataclasses.dataclass(frozen=True)
class Demo:
    """Options of `kfpn demo`."""

    workdir: str
    """The work directory of `kfpn train`."""
    host: str = "127.0.0.1"
    """The address of this machine at which the page is served. 127.0.0.1: only this machine reaches it; 0.0.0.0: all that reach this
    machine do, without a password."""
    port: int = 7860
    """The port. 0: any free one."""
    min_score: float = 0.5
    """Where the slider stands at first: detections below this score are not shown."""
    max_pixels: int = MOST_PIXELS
    """Most pixels of a picture, as for `kfpn predict`. Larger ones are named and passed over."""

    def __post_init__(self) -> None:
        if not self.host.strip():
            raise ValueError("host must be a name or an address of this machine, got nothing")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must lie in 0..65535, got {self.port}")
        check(self, "", "min_score", SHARE)
        require_max_pixels(self.max_pixels)


def serve_until_stopped(command: Demo) -> int:
    """Serves the page and says where; ends with Ctrl-C."""
    from kfpn.demo.demo_server import ALL_HOSTS, free_port, served_demo, wait_until_stopped
    from kfpn.demo.quiet_gradio import quiet_gradio

    quiet_gradio()
    port = free_port(command.host, command.port)
    from kfpn.demo.demo_detector import DemoDetector

    detector = DemoDetector(command.workdir, command.max_pixels)
    with served_demo(detector, command.host, port, command.min_score) as address:
        print(f"{address}: open it in a browser; Ctrl-C ends the demo", flush=True)
        if command.host in ALL_HOSTS:
            print("all machines that reach this one can use the page, without a password", flush=True)
        wait_until_stopped()
    return 0
