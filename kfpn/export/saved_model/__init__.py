"""Writes SavedModels for TensorFlow Serving."""

import importlib
from typing import Any

_PLACES = {"export_saved_model": "write_saved_model", "verify_saved_model": "verify_saved_model"}
"""Names that version 0.1.0 had here -> the module that holds them."""


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
