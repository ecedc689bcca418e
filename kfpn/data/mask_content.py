"""Packs the outline of one object into bytes, and unpacks it: polygons, run lengths, or nothing."""

import itertools
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kfpn.data.run_lengths import (
    bitmap_of_runs,
    packed_runs,
    run_lengths,
    runs_of_bitmap,
    runs_of_columns,
    size_of_runs,
)

NOTHING = b""
"""The content of an object without a mask."""
_HUNDREDTHS, _EXACT, _RUNS = b"h", b"x", b"r"
_RUN_HEADER = struct.Struct("<4i")
_FARTHEST = 1e7
"""Pixels: a point that lies farther out is a fault of the file."""


class Bitmap(NamedTuple):
    """Holds the columns of an object's bitmap.

    Attributes:
        pixels: (H, w) uint8, 0 or 1.
        first: the column of the image at which `pixels` begins.
        size: height and width of the whole bitmap.
    """

    pixels: np.ndarray
    first: int
    size: tuple[int, int]


def pack_outline(outline: Any, size: tuple[int, int]) -> bytes:
    """Returns the content of one object.

    Args:
        outline: None; polygons, each (n, 2) x, y in pixels or a flat list x1, y1, x2, y2, ...; run lengths as COCO's JSON has them;
            or a bitmap (H, W) of bool or whole numbers.
        size: height and width of the image.

    Raises:
        ValueError: "RULE, got VALUE", where it is none of these, or of another size.
    """
    if outline is None:
        return NOTHING
    if isinstance(outline, Mapping):
        got = size_of_runs(outline)
        if got != tuple(size):
            raise ValueError(f"be of the image's size {_sides(size)}, got a mask of {_sides(got)}")
        return _pack_runs(run_lengths(outline), got)
    if isinstance(outline, np.ndarray) and _is_bitmap(outline, size):
        if outline.shape != tuple(size):
            raise ValueError(f"be of the image's size {_sides(size)}, got a mask of {_sides(outline.shape)}")
        return _pack_runs(runs_of_bitmap(outline), (int(size[0]), int(size[1])))
    if isinstance(outline, np.ndarray) and outline.shape == tuple(size) and outline.shape[1:] != (2,):
        raise ValueError(f"be a bitmap of bool or whole numbers, got {outline.dtype}: write mask > 0.5")
    if isinstance(outline, str | bytes) or not isinstance(outline, Sequence | np.ndarray) or _is_one_value(outline):
        raise ValueError(f"be polygons or run lengths, got {type(outline).__name__} {str(outline)[:40]!r}")
    if isinstance(outline, Sequence) and _is_bitmap_of_lists(outline, size):
        raise ValueError("be a NumPy array where it is a bitmap, got lists of 0 and 1, which would be polygons")
    if isinstance(outline, np.ndarray) and outline.ndim > 2 and outline.shape[-1] != 2:
        raise ValueError(f"be a bitmap (H, W), or polygons, got {outline.dtype} {outline.shape}")
    return pack_polygons(_as_polygons(outline))


def pack_bitmap(bitmap: np.ndarray) -> bytes:
    """Returns the content of one object of which there is a bitmap (H, W) of the image's size."""
    return _pack_runs(runs_of_bitmap(bitmap), (int(bitmap.shape[0]), int(bitmap.shape[1])))


def pack_polygons(polygons: Sequence[np.ndarray]) -> bytes:
    """Returns the content of one object: hundredths of pixels where that loses nothing, as in COCO's files, else float64.

    Args:
        polygons: at least one; each (n, 2) float64 x, y in pixels, n at least 3.
    """
    points = np.concatenate(polygons)
    hundredths = np.round(points * 100.0)
    kind = _HUNDREDTHS if (hundredths / 100.0 == points).all() else _EXACT
    lengths = np.array([len(polygons), *map(len, polygons)], "<i4")
    numbers = hundredths.astype("<i4") if kind == _HUNDREDTHS else points.astype("<f8")
    return kind + lengths.tobytes() + numbers.tobytes()


def unpack_outline(content: bytes) -> list[np.ndarray] | Bitmap | None:
    """Returns the polygons, each (n, 2) float64 x, y in pixels, or the bitmap of an object; None where it has no mask."""
    if not content:
        return None
    kind = content[:1]
    if kind == _RUNS:
        height, width, first, count = _RUN_HEADER.unpack_from(content, 1)
        if not count:
            return Bitmap(np.zeros((height, 0), np.uint8), 0, (height, width))
        text = content[1 + _RUN_HEADER.size :]
        runs = run_lengths({"size": (height, count), "counts": text})
        return Bitmap(bitmap_of_runs(runs, height, count), first, (height, width))
    number = int(np.frombuffer(content, "<i4", 1, 1)[0])
    lengths = np.frombuffer(content, "<i4", number, 5)
    begin = 5 + 4 * number
    if kind == _HUNDREDTHS:
        points = np.frombuffer(content, "<i4", -1, begin) / 100.0
    else:
        points = np.frombuffer(content, "<f8", -1, begin).astype(np.float64)
    return np.split(points.reshape(-1, 2), np.cumsum(lengths)[:-1])


def size_as_drawn(content: bytes) -> tuple[int, int] | None:
    """Returns height and width of a content that is kept as run lengths; None of any other content: polygons fit each image."""
    return _RUN_HEADER.unpack_from(content, 1)[:2] if content[:1] == _RUNS else None


def rle_as_drawn(content: bytes) -> dict[str, Any] | None:
    """Returns COCO's run lengths {size, counts} of a content that is kept as run lengths; None of any other content."""
    if content[:1] != _RUNS:
        return None
    height, width, first, count = _RUN_HEADER.unpack_from(content, 1)
    text = content[1 + _RUN_HEADER.size :]
    runs = run_lengths({"size": (height, count), "counts": text}) if count else np.zeros(1, np.int64)
    runs[0] += first * height
    rest = height * width - int(runs.sum())
    if len(runs) % 2:
        runs[-1] += rest
    elif rest:
        runs = np.append(runs, rest)
    return {"size": [height, width], "counts": packed_runs(runs)}


def _pack_runs(runs: np.ndarray, size: tuple[int, int]) -> bytes:
    # Columns without the object are left out: what is decoded later is as wide as the object.
    kept, first, count = runs_of_columns(runs, size[0])
    return _RUNS + _RUN_HEADER.pack(*size, first, count) + packed_runs(kept)


def _is_bitmap(outline: np.ndarray, size: tuple[int, int]) -> bool:
    if outline.ndim != 2 or outline.dtype.kind not in "bui":
        return False
    # Whole numbers in two columns are the points x, y of a polygon, unless the image itself is two pixels wide.
    return outline.dtype.kind == "b" or outline.shape[1] != 2 or outline.shape == tuple(size)


def _is_one_value(outline: Any) -> bool:
    return isinstance(outline, np.ndarray) and outline.ndim == 0


def _is_bitmap_of_lists(outline: Sequence[Any], size: tuple[int, int]) -> bool:
    rows = [row for row in outline if isinstance(row, Sequence | np.ndarray) and len(row) == size[1]]
    return len(rows) == len(outline) == size[0] and all(number in (0, 1) for row in rows for number in row)


def _as_polygons(outline: Sequence[Any] | np.ndarray) -> list[np.ndarray]:
    if not len(outline):
        raise ValueError("have at least one polygon, got an empty list")
    in_rows = isinstance(outline, np.ndarray) and outline.ndim == 2
    one = in_rows or not isinstance(outline[0], Sequence | np.ndarray) or are_points(outline)
    return [as_points(polygon) for polygon in ([outline] if one else outline)]


def are_points(rows: Sequence[Any] | np.ndarray) -> bool:
    """Says whether rows are pairs x, y: the points of one polygon, not several polygons."""
    return all(
        isinstance(row, Sequence | np.ndarray)
        and len(row) == 2
        and not isinstance(row, str | bytes)
        and not isinstance(row[0], Sequence | np.ndarray)
        for row in rows
    )


def as_points(polygon: Any) -> np.ndarray:
    """Returns one polygon as (n, 2) float64 x, y.

    Raises:
        ValueError: "RULE, got VALUE", where it is not a list of at least three points.
    """
    try:
        numbers = np.asarray(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"have polygons of numbers, got {str(polygon)[:60]}") from None
    if isinstance(polygon, str) or numbers.ndim not in (1, 2) or (numbers.ndim == 2 and numbers.shape[1] != 2):
        raise ValueError(f"have polygons of numbers x1, y1, x2, y2, ..., got {str(polygon)[:60]}")
    if _has_truth_values(polygon):
        raise ValueError(f"have polygons of numbers, which true and false are not, got {str(polygon)[:60]}")
    if numbers.size % 2:
        raise ValueError(f"have polygons of pairs x, y, got {numbers.size} numbers")
    if numbers.size < 6:
        count = numbers.size // 2
        raise ValueError(f"have polygons of at least three points, got {count} point{'s' if count != 1 else ''}")
    if not (np.abs(numbers) < _FARTHEST).all():  # of NaN too this is not so
        raise ValueError(f"have polygons of finite pixels, got {numbers[~(np.abs(numbers) < _FARTHEST)][0]:g}")
    return numbers.reshape(-1, 2)


def _has_truth_values(polygon: Sequence[Any] | np.ndarray) -> bool:
    """Says whether a value of a polygon is true or false, which NumPy would take for 1 or 0."""
    if isinstance(polygon, np.ndarray):
        return polygon.dtype.kind == "b"
    in_rows = len(polygon) > 0 and isinstance(polygon[0], Sequence)
    return bool in map(type, itertools.chain.from_iterable(polygon) if in_rows else polygon)


def _sides(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"
