"""Writes JSON and text files aside and renames them, so that a file is complete or not there; reads JSON."""

import json
import math
import os
import threading
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
    except RecursionError:
        raise ValueError(f"{path} must be JSON, got lists or objects that are nested too deep") from None
    except ValueError as error:  # also of a number with thousands of digits
        raise ValueError(f"{path} must be JSON, got: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file aside and renames it; NaN and inf become null."""
    write_aside(path, json.dumps(without_nonfinite(value), indent=2) + "\n")


def sync_folder(path: Path) -> None:
    """Makes sure that a rename in a folder survives a power failure, where the file system can do that."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:  # Some network file systems can't sync folders.
        pass
    finally:
        os.close(folder)


def write_aside(path: Path, text: str) -> None:
    """Writes a text file aside and renames it: the file is the old one or the new one, never a part of one.

    Raises:
        OSError: naming the file, if it can't be written; the old file stays.
    """
    aside = name_aside(path)
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except BaseException as error:
        with suppress(OSError):  # The first failure is the cause, so a second one is not reported.
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):  # The error of a full disk names no file.
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def begin_of(path: Path, count: int) -> bytes:
    """Returns the first `count` bytes of a file, without blanks around them; nothing where there is no file.

    Raises:
        OSError: if it can't be read.
    """
    if not path.exists():
        return b""
    with open(path, "rb") as file:
        return file.read(count).strip()


def name_aside(path: Path) -> Path:
    """Returns the path of a file beside another, for what will replace it: another one in each process and thread.

    It is short, because the other's name may be as long as names may be.
    """
    return path.with_name(f"kfpn-{os.getpid()}-{threading.get_ident()}.tmp")


def without_nonfinite(value: Any) -> Any:
    """Returns a copy of nested dicts and lists with None in place of NaN and inf, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
