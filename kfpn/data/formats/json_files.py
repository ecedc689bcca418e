"""Reads JSON files of annotations, and tells by the keys in them which tool's form they have."""

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfpn.data.encodings import decode_text
from kfpn.data.memory_limit import memory_limit
from kfpn.data.mistaken_files import HEAD, mistaken_for

_FIRST_BLOCK, _BLOCK = 1 << 16, 1 << 22  # bytes
_KEYS = {
    "COCO": (b'"images"', b'"annotations"', b'"categories"'),
    "labelme": (b'"shapes"', b'"imagePath"'),
}


def json_form(path: Path) -> str:
    """Returns "COCO" or "labelme" by the keys that are first all there, "" where neither's are.

    The file is not parsed: large ones take a minute. labelme writes the picture itself behind both keys. What a file has is kept as long
    as the file is the same, because each form that a folder may have asks for it.
    """
    try:
        state = path.stat()
    except OSError:
        return ""
    return _form_of(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _form_of(path: Path, size: int, time: int) -> str:
    wanted = {form: set(keys) for form, keys in _KEYS.items()}
    with contextlib.suppress(OSError), path.open("rb") as file:
        rest, length = b"", _FIRST_BLOCK
        while block := file.read(length):
            text = rest + block.replace(b"\0", b"")  # so that UTF-16 shows its letters
            for form, keys in wanted.items():
                keys -= {key for key in keys if key in text}
                if not keys:
                    return form
            rest, length = text[-32:], _BLOCK
    return ""


def parsed_json(path: Path, name: str, take_object: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    """Parses a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        path: of the file.
        name: what messages call it.
        take_object: makes the keys and values of each object into what is kept of it.

    Raises:
        ValueError: when it can't be read, or is not JSON; says why.
    """
    _require_memory(path, name)
    try:  # apart from the whole, which must not stay in the memory while it is parsed
        with path.open("rb") as file:
            mistaken = mistaken_for(file.read(HEAD))
    except OSError as error:
        raise ValueError(f"{name}: can't be read: {error.strerror}") from error
    if mistaken:
        raise ValueError(f"{name}: {mistaken}")
    try:
        content = json.loads(decode_text(path.read_bytes()), object_pairs_hook=take_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: is not JSON text in UTF-8, UTF-16 or UTF-32 ({error})") from error
    except ValueError as error:  # an integer of more digits than Python reads
        raise ValueError(f"{name}: can't be read: {str(error).partition(';')[0]}") from error
    except (RecursionError, MemoryError) as error:
        deep = isinstance(error, RecursionError)
        why = (
            "nested deeper than annotations are" if deep else f"too large for the memory, {path.stat().st_size:,} bytes"
        )
        raise ValueError(f"{name}: can't be read: is {why}") from error
    except OSError as error:
        raise ValueError(f"{name}: can't be read: {error.strerror}") from error
    return content


def _require_memory(path: Path, name: str) -> None:
    """Refuses a file that the memory cannot hold as bytes and as text: Linux would kill the process without a word."""
    size, memory = path.stat().st_size, memory_limit()
    if memory is not None and 2 * size > memory:
        raise ValueError(f"{name}: can't be read: is too large for the memory, {size:,} bytes of {memory:,}")
