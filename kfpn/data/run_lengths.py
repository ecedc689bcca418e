"""Reads and writes COCO's run lengths: how many pixels, column after column, are outside, inside, outside ... of an object."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kfpn.data.field_values import whole_number

LARGEST_SIDE = 1 << 16
"""Most pixels of a side of a mask; COCO's own reader would ask for any amount of memory."""
_FIRST_SIGN, _BITS, _MORE, _SIGN = 48, 31, 32, 16
_KEYS = "size and counts"


def run_lengths(rle: Mapping[str, Any]) -> np.ndarray:
    """Returns the runs of a mask as COCO's JSON has it, checked.

    Args:
        rle: `size` (height, width) and `counts`, a list of numbers or COCO's compressed text (str or bytes).

    Returns:
        (N,) int64, whose sum is height x width.

    Raises:
        ValueError: "RULE, got VALUE", where it is no such mask.
    """
    height, width = size_of_runs(rle)
    counts = rle["counts"]
    runs = _runs_of_text(counts) if isinstance(counts, str | bytes) else _runs_of_numbers(counts)
    if (runs < 0).any():
        raise ValueError(f"have counts of at least 0, got {int(runs.min())}")
    if int(runs.sum()) != height * width:
        raise ValueError(
            f"have counts whose sum is height x width, {height} x {width} = {height * width}, got {int(runs.sum())}"
        )
    return runs


def size_of_runs(rle: Mapping[str, Any]) -> tuple[int, int]:
    """Returns height and width of a mask of run lengths.

    Raises:
        ValueError: "RULE, got VALUE", where it has none.
    """
    if not (isinstance(rle, Mapping) and "size" in rle and "counts" in rle):
        keys = ", ".join(map(str, list(rle)[:5])) if isinstance(rle, Mapping) else type(rle).__name__
        raise ValueError(f"have {_KEYS}, got {keys[:60] or 'nothing'}")
    given = rle["size"]
    sides = [_side(side) for side in given] if isinstance(given, list | tuple | np.ndarray) else []
    if len(sides) != 2 or not all(0 < side <= LARGEST_SIDE for side in sides):
        raise ValueError(f"have a size of height and width, 1..{LARGEST_SIDE} pixels, got {str(given)[:60]}")
    height, width = sides
    return height, width


def _side(value: Any) -> int:
    """Returns a number of pixels, which may be written 60.0 or "60" as in other fields; 0 for what is none."""
    return int(value) if isinstance(value, np.integer) else whole_number(value) or 0


def packed_runs(runs: np.ndarray) -> bytes:
    """Returns COCO's compressed text of runs.

    Each run from the fourth on is written as its difference to the one two before; a number is written in signs of five bits, the
    lowest first.

    Args:
        runs: (N,) int, at least 0.
    """
    numbers = runs.astype(np.int64)
    numbers[3:] -= runs[1:-2]
    written = bytearray()
    for number in numbers.tolist():
        more = True
        while more:
            bits = number & _BITS
            number >>= 5
            more = number != (-1 if bits & _SIGN else 0)
            written.append((bits | (_MORE if more else 0)) + _FIRST_SIGN)
    return bytes(written)


def runs_of_bitmap(bitmap: np.ndarray) -> np.ndarray:
    """Returns the runs (N,) int64 of a bitmap (H, W); the first one is outside of the object, of length 0 where it begins with it."""
    flat = np.asarray(bitmap, bool).ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], ends, [flat.size]])
    runs = np.diff(edges)
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs


def bitmap_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the bitmap (height, width) of uint8, 0 or 1, of runs whose sum is height x width."""
    inside = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(inside, runs).reshape(width, height).T


def runs_of_columns(runs: np.ndarray, height: int) -> tuple[np.ndarray, int, int]:
    """Leaves out the columns before and behind an object.

    Args:
        runs: (N,) int64 of the whole image; some may be 0.
        height: pixels of the image.

    Returns:
        The runs of the columns that are left, the first one and how many there are; of an empty mask none are left.
    """
    ends = np.cumsum(runs)
    filled = np.flatnonzero(runs[1::2]) * 2 + 1
    if not len(filled):
        return np.zeros(0, np.int64), 0, 0
    first = int(ends[filled[0] - 1]) // height
    behind = -(-int(ends[filled[-1]]) // height)
    # From the run before the first pixel on: where runs of 0 stand before it, their pixels outside are one run.
    kept = runs[filled[0] - 1 : filled[-1] + 1].copy()
    kept[0] = ends[filled[0] - 1] - first * height
    rest = behind * height - int(ends[filled[-1]])
    return np.concatenate([kept, [rest]]) if rest else kept, first, behind - first


def _runs_of_numbers(counts: Any) -> np.ndarray:
    try:
        runs = np.asarray(counts if isinstance(counts, list | tuple | np.ndarray) else [[]])
        known = runs.ndim == 1 and (runs.size == 0 or runs.dtype.kind in "iuf")
        known = known and (isinstance(counts, np.ndarray) or bool not in map(type, counts))
    except ValueError:  # lists of several lengths
        known = False
    # Larger numbers have sums that int64 cannot hold.
    if not known or not ((np.abs(runs) <= LARGEST_SIDE**2) & (runs == np.round(runs))).all():
        raise ValueError(f"have counts that are whole numbers of pixels, or text, got {str(counts)[:60]}")
    return runs.astype(np.int64)


def _runs_of_text(text: str | bytes) -> np.ndarray:
    signs = np.frombuffer(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, np.uint8).astype(
        np.int64
    )
    signs = signs - _FIRST_SIGN
    if not len(signs) or signs.min() < 0 or signs.max() >= 2 * _MORE or signs[-1] & _MORE:
        raise ValueError(f"have counts in COCO's compressed text, got {text[:40]!r}")
    last = (signs & _MORE) == 0
    number = np.concatenate([[0], np.cumsum(last)[:-1]])
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(signs)) - starts[number]
    if place.max() > 7:  # 40 bits: no image has so many pixels
        raise ValueError(f"have counts of pixels, got a number of {int(place.max()) + 1} signs")
    values = np.add.reduceat((signs & _BITS) << (5 * place), starts)
    ends = np.flatnonzero(last)
    negative = (signs[ends] & _SIGN) != 0
    values -= negative.astype(np.int64) << (5 * (place[ends] + 1))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
