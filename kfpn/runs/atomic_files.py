"""Files that are whole or not there: JSON and text, written aside and renamed."""

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: naming the file, if it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be JSON, got: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file aside and renames it; NaN and inf become null."""
    write_aside(path, json.dumps(plain(value), indent=2) + "\n")


def sync_folder(path: Path) -> None:
    """Makes a rename in a folder outlast a power failure, where the file system can."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:  # some network file systems sync no folders
        pass
    finally:
        os.close(folder)


def write_aside(path: Path, text: str) -> None:
    """Writes a text file aside and renames it: there is the old one or the new one, never half of one.

    Raises:
        OSError: naming the file, if it can't be written; the old one stays.
    """
    aside = path.with_name(path.name + ".tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        with suppress(OSError):  # of two failures the first one is the cause
            aside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # a full disk names no file


def plain(value: Any) -> Any:
    """Returns a nest of dicts and lists with None, which JSON has, for NaN and inf."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
