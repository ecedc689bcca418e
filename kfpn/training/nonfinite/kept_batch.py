"""Keeps a batch in a file of plain arrays, without pickles: bytes of any length become numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

_BYTES, _LENGTHS = "/bytes", "/lengths"


def write_batch(path: Path, batch: Mapping[str, np.ndarray]) -> None:
    """Writes a batch to an .npz file.

    Args:
        path: of the file.
        batch: name -> array of numbers, or of bytes (compressed masks).

    Raises:
        OSError: if it can't be written.
    """
    plain: dict[str, np.ndarray] = {}
    for name, value in batch.items():
        if value.dtype.kind != "O":
            plain[name] = value
            continue
        rows = [bytes(row) for row in value.ravel()]
        plain[name + _BYTES] = np.frombuffer(b"".join(rows), np.uint8)
        plain[name + _LENGTHS] = np.array([len(row) for row in rows], np.int64).reshape(value.shape)
    np.savez(path, **plain)  # type: ignore[arg-type]


def read_batch(path: Path) -> dict[str, np.ndarray]:
    """Returns the batch that `write_batch` wrote.

    Raises:
        ValueError: naming the file, if it can't be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            plain = {name: file[name] for name in file.files}
        batch = {name: value for name, value in plain.items() if not name.endswith((_BYTES, _LENGTHS))}
        for name in [name.removesuffix(_LENGTHS) for name in plain if name.endswith(_LENGTHS)]:
            lengths, content = plain[name + _LENGTHS], plain[name + _BYTES].tobytes()
            ends = np.cumsum(lengths.ravel()).tolist()
            rows = np.empty(len(ends), object)
            rows[:] = [content[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
            batch[name] = rows.reshape(lengths.shape)
    except Exception as error:  # NumPy and zipfile raise errors of many types for a damaged file.
        raise ValueError(f"{path} must be the batch that a run kept, got: {error}") from error
    return batch
