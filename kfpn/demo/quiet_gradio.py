"""Imports Gradio with everything switched off that speaks to other machines."""

import importlib
import importlib.util
import os
from types import ModuleType

QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
"""Environment variables that Gradio and its libraries read, some of them only while they are imported."""


def quiet_gradio() -> ModuleType:
    """Returns Gradio.

    Raises:
        ValueError: with the line that installs it, if it is not there.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the demo needs Gradio, which is not installed: pip install 'kfpn[demo]'")
    os.environ.update(QUIET)
    return importlib.import_module("gradio")


def without_proxy(host: str) -> None:
    """Lets requests of this process to a host of its own pass by a proxy that the environment names.

    Gradio asks its own server whether it has started. A proxy would get this request, and could not answer it.
    """
    for name in ("NO_PROXY", "no_proxy"):
        hosts = filter(None, os.environ.get(name, "").split(","))
        os.environ[name] = ",".join(dict.fromkeys((*hosts, "127.0.0.1", "localhost", host)))
