"""Checks all image files of a data set when it is opened, and remembers which were checked before."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from kfpn.data.check_memory import CHECKED, CheckMemory, current_memory, file_stamps
from kfpn.data.image import NARROW_SAID, CheckedImage, check_image, narrow_range, read_header
from kfpn.data.opening_warnings import warn_of_data

NAMED_FAULTS = 5
"""Faulty files that an error names."""
_LONG = 2000  # files from which a check shows a progress bar
_CHUNK = 128  # files of one task: a task of its own for each file would take longer than the file


def read_headers(images: Sequence[str | bytes], names: Sequence[str], source: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the headers of all images and checks that each file is whole, as far as `check_images` of the opening asks for it.

    Args:
        images: N paths or encoded images.
        names: what messages call them.
        source: the data set's name in messages.

    Returns:
        sizes (N, 2) int32, height and width after EXIF rotation, and orientations (N,) int32.

    Raises:
        ValueError: when some are missing, truncated or no images; names the first of them.
    """
    memory = current_memory()
    rows = np.zeros((len(images), len(CHECKED)), np.int32)
    paths = [image for image in images if isinstance(image, str)]
    stamps = file_stamps(paths) if memory is not None and len(paths) == len(images) else None
    known = np.zeros(len(images), bool)
    if memory is not None and stamps is not None and memory.check_images != "full":
        known = memory.recall(paths, stamps, rows)
    unknown = np.flatnonzero(~known)
    bad = _check_all([images[i] for i in unknown.tolist()], unknown, rows, memory, source)
    if (
        memory is not None
        and stamps is not None
        and memory.check_images != "none"
        and (not known.all() or memory.count != len(paths))
    ):
        good = np.ones(len(images), bool)
        good[list(bad)] = False
        memory.learn(paths, stamps, rows, good)
    if bad:
        title = f"{source}: {len(bad)} of {len(images)} images can't be used"
        raise ValueError(listing(title, [f"{names[i]} {why}" for i, why in bad.items()]))
    _warn_of_narrow_images(rows, names, source)
    return rows[:, :2], rows[:, 2]


def _check_all(
    images: Sequence[str | bytes], places: np.ndarray, rows: np.ndarray, memory: CheckMemory | None, source: str
) -> dict[int, str]:
    """Writes what is found of each image into its row, and returns the faults: place -> why."""
    bad: dict[int, str] = {}
    how = memory.check_images if memory is not None else "once"

    def check(begin: int) -> int:
        chunk = range(begin, min(begin + _CHUNK, len(images)))
        for i in chunk:
            try:
                rows[places[i]] = _row(images[i], how)
            except ValueError as error:
                bad[int(places[i])] = str(error)
        return len(chunk)

    with (
        ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool,
        progress_bar(len(images), f"checking the images of {source}") as bar,
    ):
        for count in pool.map(check, range(0, len(images), _CHUNK)):
            bar.update(count)
    return dict(sorted(bad.items()))


def _row(image: str | bytes, how: str) -> tuple[int, ...]:
    checked = CheckedImage(read_header(image)) if how == "none" else check_image(image, decode=how == "full")
    return (*checked.header, checked.bits, checked.highest)


def _warn_of_narrow_images(rows: np.ndarray, names: Sequence[str], source: str) -> None:
    narrow = np.flatnonzero(rows[:, 3] > 8)
    if len(narrow):
        NARROW_SAID.set()
        first = narrow[0]
        values = narrow_range(int(rows[first, 3]), int(rows[first, 4]))
        warn_of_data(
            f"{source}: images of more than 8 bits whose values fill less than an eighth of their range: {len(narrow)} "
            f"(first: {names[first]} has {values})"
        )


def progress(items: Iterable, total: int, what: str) -> Iterable:
    """Returns `items` with a progress bar around them, where there are many."""
    return tqdm(items, what, total, unit="image", leave=False, disable=total < _LONG)


def progress_bar(total: int, what: str) -> tqdm:
    """Returns a progress bar for `total` images, which shows itself where they are many."""
    return tqdm(None, what, total, unit="image", leave=False, disable=total < _LONG)


def listing(title: str, lines: Sequence[str], count: int | None = None) -> str:
    """Returns a title and the first lines below it, and how many more there are.

    Args:
        title: without the colon.
        lines: of faults.
        count: of all faults; None: of the lines.
    """
    more = (count or len(lines)) - NAMED_FAULTS
    return "\n  ".join([f"{title}:", *lines[:NAMED_FAULTS], *([f"... and {more} more"] if more > 0 else [])])
