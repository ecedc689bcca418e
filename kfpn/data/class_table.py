"""Counts what a data set holds: a table of its classes, its sizes, and what was left out or changed."""

import unicodedata
from typing import NamedTuple

import numpy as np

from kfpn.data.annotations import AnnotatedSource
from kfpn.data.object_counts import classes_of_images
from kfpn.data.record import Source

_ALL_SHOWN = 24
_MOST, _LEAST = 14, 6
"""Of more than `_ALL_SHOWN` classes, as many are shown: those with the most objects, and those with the least."""
_WIDEST_NAME = 40


class ClassCounts(NamedTuple):
    """Counts what a data set has of each class.

    Attributes:
        objects: (K,) int, boxes to learn from.
        crowd: (K,) int, boxes of crowd, which nothing learns from.
        images: (K,) int, images with at least one object that is no crowd.
        empty_images: int, images without any box.
    """

    objects: np.ndarray
    crowd: np.ndarray
    images: np.ndarray
    empty_images: int


def count_classes(source: AnnotatedSource) -> ClassCounts:
    """Returns the counts of a data set's classes."""
    held, classes = source.annotations, len(source.class_names)
    return ClassCounts(
        np.bincount(held.labels[~held.crowd], minlength=classes),
        np.bincount(held.labels[held.crowd], minlength=classes),
        np.bincount(classes_of_images(source).labels, minlength=classes),
        int((np.diff(held.offsets) == 0).sum()),
    )


def describe_source(source: Source) -> str:
    """Returns what a data set holds, in some lines: images, sizes, classes with their objects, and what was left out or changed.

    Args:
        source: of `open_source`. Of a source of one's own, the images and the classes are counted.

    Returns:
        Text for people. Of more than 24 classes, those with the most and those with the least objects are shown.
    """
    low, high = np.asarray(source.sizes).min(axis=0), np.asarray(source.sizes).max(axis=0)
    sizes = f"{_range(low[1], high[1])} x {_range(low[0], high[0])} pixels"
    head = f"{source.name}: {_count(len(source), 'image')} of {sizes}, {_count(len(source.class_names), 'class')}"
    if not isinstance(source, AnnotatedSource):
        return head
    counts = count_classes(source)
    crowd = f" and {counts.crowd.sum():,} of crowd" if counts.crowd.any() else ""
    empty = f"; images without a box: {counts.empty_images:,}" if counts.empty_images else ""
    lines = [f"{head}, {_count(counts.objects.sum(), 'object')}{crowd}{empty}", *_rows(source.class_names, counts)]
    lines += _mask_lines(source)
    lines += [f"  {kind}: {count:,} (first: {first})" for kind, (count, first) in source.fault_counts.items()]
    return "\n".join(lines)


def _mask_lines(source: AnnotatedSource) -> list[str]:
    """Returns a line on how many objects have masks; none where they were not asked for."""
    masks = source.annotations.masks
    if masks is None:
        return []
    if not masks.exists.any():
        return ["  masks: none, boxes alone"]
    has_mask, count = int(masks.exists.sum()), len(masks)
    without = (
        "" if has_mask == count else f"; objects with a box alone are left out of the mask loss: {count - has_mask:,}"
    )
    return [f"  masks: {has_mask:,} of {count:,} boxes have one{without}"]


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number:,} {what}{'' if number == 1 else plural}"


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}..{high}"


def _rows(class_names: tuple[str, ...], counts: ClassCounts) -> list[str]:
    labels = list(range(len(class_names)))
    order = sorted(labels, key=lambda label: (-int(counts.objects[label]), label))
    shown = labels if len(labels) <= _ALL_SHOWN else [*order[:_MOST], *order[-_LEAST:]]
    names = {label: printable(class_names[label]) for label in shown}
    width = max(_columns(name) for name in ("class", *names.values()))
    lines = [f"  {'class':<{width}}  {'objects':>9}  {'crowd':>7}  {'images':>8}"]
    for place, label in enumerate(shown):
        if len(labels) > _ALL_SHOWN and place == _MOST:
            between = order[_MOST:-_LEAST]
            lines.append(
                f"  … and {len(between):,} more, with {counts.objects[between[0]]:,} to {counts.objects[between[-1]]:,} objects"
            )
        padded = names[label] + " " * (width - _columns(names[label]))
        numbers = f"{counts.objects[label]:>9,}  {counts.crowd[label]:>7,}  {counts.images[label]:>8,}"
        lines.append(f"  {padded}  {numbers}")
    return lines


def printable(name: str, longest: int = _WIDEST_NAME) -> str:
    """Returns a name as it can stand in a line: line breaks and control characters are escaped, and a long one is cut.

    Args:
        name: any text.
        longest: characters that are kept.
    """
    plain = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def _columns(text: str) -> int:
    """Returns how many columns a text takes on a terminal: signs of Chinese, Japanese and Korean take two."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(unicodedata.combining(sign) > 0 for sign in text)
