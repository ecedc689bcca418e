"""kfpn: Feature Pyramid Networks for Faster R-CNN in Keras 3."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "build_detector", "import_weights", "list_pretrained", "load_detector", "load_weights"]

# Keras loads only when something is asked for, so that `kfpn --help` answers at once.
_PLACES = {
    "build_detector": "kfpn.modeling.detector",
    "import_weights": "kfpn.weights.import_weights",
    "list_pretrained": "kfpn.weights.pretrained",
    "load_detector": "kfpn.weights.assign",
    "load_weights": "kfpn.weights.assign",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'kfpn' has no attribute {name!r}")
