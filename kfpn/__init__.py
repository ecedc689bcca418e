"""kfpn: Feature Pyramid Networks for Faster R-CNN in Keras 3."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "build_detector", "load_detector"]


def __getattr__(name: str) -> Any:
    # Keras loads only when a detector is asked for, so that `kfpn --help` answers at once.
    if name == "build_detector":
        from kfpn.modeling.detector import build_detector

        return build_detector
    if name == "load_detector":
        from kfpn.engine.workdir import load_detector

        return load_detector
    raise AttributeError(f"module 'kfpn' has no attribute {name!r}")
