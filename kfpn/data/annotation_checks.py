"""Checks a data set when it is opened: its images, its boxes, its classes."""

import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kfpn.data.field_values import whole_number
from kfpn.data.image_checks import NAMED_FAULTS, listing
from kfpn.data.opening_warnings import warn_of_data

LOGGER = logging.getLogger("kfpn")

_LONGEST_NAME = 1000  # characters: accents are sorted in a time that grows with the square of their number

NOT_FINITE = "boxes with a coordinate that is not a finite number, left out"
NO_AREA = "boxes without area, left out"
OUTSIDE = "boxes outside their image, left out"
CLIPPED = "boxes that reach outside their image, clipped"
OUTSIDE_IMAGE = "masks without a pixel in their image, left out; the boxes stay"
BESIDE_BOX = "masks that lie beside their object's box, left out; the boxes stay"
OTHER_EXTENT = "masks whose extent is another one than their object's box (IoU below .5), kept"

_ROUNDING = 1.0  # pixels a box may reach outside before it counts as a fault: annotation tools round


class AnnotationFaults:
    """Counts what was wrong with a data set but could be put right, by kind.

    Args:
        source: str, the data set's name in messages.
        counts: kind -> (count, place of the first), as `counts` of another `AnnotationFaults`.
    """

    def __init__(self, source: str, counts: dict[str, tuple[int, str]] | None = None) -> None:
        self.source = source
        self.counts = dict(counts or {})

    def add(self, kind: str, where: str, count: int = 1) -> None:
        """Counts `count` faults of a kind; `where` is remembered for the first."""
        if count:
            before, first = self.counts.get(kind, (0, where))
            self.counts[kind] = (before + count, first)

    def report(self) -> None:
        """Logs one warning for each kind, with how many there are and the first file."""
        for kind, (count, first) in self.counts.items():
            warn_of_data(f"{self.source}: {kind}: {count} (first: {first})")


def usable_boxes(
    boxes: np.ndarray, sizes: np.ndarray, where: Callable[[int], str], faults: AnnotationFaults
) -> tuple[np.ndarray, np.ndarray]:
    """Clips boxes to their images and finds those that cannot be used.

    Args:
        boxes: (M, 4) yxyx pixels.
        sizes: (M, 2) height and width of each box's image.
        where: gives the file of box m, for the warning.
        faults: counts the boxes of each kind. Less than a pixel outside the image is rounding, not a fault.

    Returns:
        clipped boxes (M, 4) float32 and a mask (M,) bool of the usable ones.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    limits = np.concatenate([sizes, sizes], axis=1).reshape(-1, 4).astype(np.float64)
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    boxes = np.where(finite[:, None], boxes, 0.0)
    has_area = finite & (boxes[:, 2:] - boxes[:, :2] > 0.0).all(axis=1)
    clipped = np.clip(boxes, 0.0, limits).astype(np.float32)
    inside = has_area & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    moved = inside & (np.abs(boxes - np.clip(boxes, 0.0, limits)) > _ROUNDING).any(axis=1)
    kinds = {NOT_FINITE: ~finite, NO_AREA: finite & ~has_area, OUTSIDE: has_area & ~inside, CLIPPED: moved}
    for kind, mask in kinds.items():
        if mask.any():
            faults.add(kind, where(int(np.argmax(mask))), int(mask.sum()))
    return clipped, inside


def upright_boxes(boxes: np.ndarray, sizes: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Turns boxes of the stored pixels into boxes of the image after EXIF rotation.

    Args:
        boxes: (M, 4) yxyx pixels of the file's own rows and columns.
        sizes: (M, 2) height and width of each box's image after the rotation.
        orientations: (M,) EXIF orientation 1..8 of each box's image; 1 leaves its box alone.

    Returns:
        (M, 4) yxyx pixels.
    """
    y0, x0, y1, x1 = np.where((orientations >= 5)[:, None], boxes[:, [1, 0, 3, 2]], boxes).T
    height, width = sizes.T
    flip_y, flip_x = np.isin(orientations, (3, 4, 7, 8)), np.isin(orientations, (2, 3, 6, 7))
    y0, y1 = np.where(flip_y, height - y1, y0), np.where(flip_y, height - y0, y1)
    x0, x1 = np.where(flip_x, width - x1, x0), np.where(flip_x, width - x0, x1)
    return np.stack([y0, x0, y1, x1], axis=1)


def in_stored_pixels(
    declared: np.ndarray, sizes: np.ndarray, orientations: np.ndarray, names: Sequence[str], source: str
) -> np.ndarray:
    """Compares the sizes that annotations declare with those of the images.

    Boxes are taken to lie in the image after EXIF rotation, as viewers show it, unless the annotations declare the size of
    the image before the rotation. (The size does not show a rotation by 180 degrees.)

    Args:
        declared: (N, 2) int height and width; 0: that side is not declared.
        sizes: (N, 2) int height and width after EXIF rotation.
        orientations: (N,) int EXIF orientations.
        names: what messages call the images.
        source: the data set's name in messages.

    Returns:
        (N,) bool, True where the boxes lie in the stored pixels and must be rotated with the image.

    Raises:
        ValueError: where a declared size is neither of the two: the boxes belong to another picture.
    """
    unknown = declared <= 0
    same = (unknown | (declared == sizes)).all(axis=1)
    stored = ~same & (orientations >= 5) & (unknown | (declared == sizes[:, ::-1])).all(axis=1)
    wrong = np.flatnonzero(~same & ~stored)
    if len(wrong):
        bad = [
            f"{names[i]} is {sizes[i][1]} x {sizes[i][0]}, annotated as {' x '.join(str(side or '?') for side in declared[i][::-1])}"
            for i in wrong[:NAMED_FAULTS]
        ]
        swapped = all((declared[i] == sizes[i][::-1]).all() for i in wrong)
        advice = (
            "Width and height are swapped: correct them in the annotations, or use the images that were annotated."
            if swapped
            else "Use the images that were annotated, or correct the sizes and boxes."
        )
        title = (
            f"{source}: {len(wrong)} of {len(names)} images are not of the size (width x height) their annotations say"
        )
        raise ValueError(f"{listing(title, bad, len(wrong))}\n{advice}")
    return stored


def require_unique(values: Iterable[object], what: str, source: str) -> None:
    """Raises a ValueError that names the first value that comes twice."""
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{source}: {what} must be unique, got {value!r} more than once")
        seen.add(value)


def plain_name(name: str) -> str:
    """Returns a key of a class name in which case, hyphens, the number of spaces and the form of its signs do not matter."""
    composed = unicodedata.normalize("NFKC", name[:_LONGEST_NAME])
    seen = "".join(sign for sign in composed if unicodedata.category(sign) != "Cf")  # without signs that nobody sees
    return " ".join(seen.replace("_", " ").replace("-", " ").casefold().split())


_NO_NAMES = frozenset(("nan", "null", "none"))

_SIMILAR: dict[str, Callable[[str], object]] = {
    "whose names differ only in case, spaces, hyphens or accents' form": plain_name,
    "whose names are one number in several spellings": whole_number,
}


def warn_of_similar_names(class_names: Sequence[str], source: str) -> None:
    """Logs one warning for each way in which names of classes are alike: they may be one class; and for names that are none."""
    missing = [str(name) for name in class_names if plain_name(str(name)) in _NO_NAMES]
    if missing:
        shown = ", ".join(map(repr, missing[:NAMED_FAULTS]))
        warn_of_data(f"{source}: classes called what tools write where a name is missing: {len(missing)} ({shown})")
    for alike, key_of in _SIMILAR.items():
        first: dict[object, str] = {}
        keyed = [(key, str(name)) for name in class_names if (key := key_of(str(name))) is not None]
        pairs = [(one, two) for key, two in keyed if (one := first.setdefault(key, two)) != two]
        if pairs:
            shown = ", ".join(f"{one!r} and {two!r}" for one, two in pairs[:NAMED_FAULTS])
            warn_of_data(f"{source}: classes {alike}: {len(pairs)} ({shown})")
