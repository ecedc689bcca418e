"""Downloads the folders of detectors that others shared on Hugging Face and Kaggle, by the libraries of these two."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from kfpn.weights.save_detector import FILES


def _of_hugging_face(library: ModuleType, name: str) -> str:
    repository, _, revision = name.partition("@")
    return library.snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES))


def _of_kaggle(library: ModuleType, name: str) -> str:
    return library.model_download(name)


HUBS: dict[str, tuple[str, str, Callable[[Any, str], str]]] = {
    "hf://": ("huggingface_hub", "USER/NAME, or USER/NAME@REVISION", _of_hugging_face),
    "kaggle://": ("kagglehub", "USER/MODEL/FRAMEWORK/VARIATION, or that and /VERSION", _of_kaggle),
}
"""What an address begins with -> the library that downloads, what the rest of the address is, and a function that downloads."""


def downloaded_folder(source: str | os.PathLike) -> Path | None:
    """Returns the folder of a detector at an address of a hub, which its library downloads once and keeps; None: it is no such address.

    Args:
        source: "hf://USER/NAME", "kaggle://USER/MODEL/FRAMEWORK/VARIATION", or anything else.

    Raises:
        ValueError: naming the address, if it can't be downloaded.
        ModuleNotFoundError: if the library is not installed.
    """
    text = os.fspath(source)
    for scheme, (package, form, download) in HUBS.items():
        if not text.startswith(scheme):
            continue
        try:
            library = importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{text} needs {package}, which is not installed: pip install {package}", name=package
            ) from error
        try:
            return Path(download(library, text.removeprefix(scheme)))
        except Exception as error:  # The libraries raise errors of many types, some of several lines.
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{text} must be {scheme} and {form}, of a detector that can be downloaded, got: {why[:300]}"
            ) from error
    return None
