"""Describes what a data set holds in a few numbers, so that a run that goes on notices a change: it is a function of its data."""

import hashlib
from typing import Any

import numpy as np

from kfpn.data.annotations import AnnotatedSource
from kfpn.data.record import Source


def fingerprint(source: Source, validation: Source | None = None) -> dict[str, Any]:
    """Returns counts and digests of a data set's annotations; pixels are not read.

    Args:
        source: the data set.
        validation: another one, whose fingerprint becomes the entry `validation`; None: there is no such entry.

    Returns:
        dict: `images`, int; `sizes`, a digest of their heights and widths in order; of sources whose annotations are at hand
        also `objects`, int, and digests of `image_ids`, `boxes`, `labels`, `crowd`, and `masks` where they were read.
    """
    digests: dict[str, Any] = {"images": len(source), "sizes": _digest(source.sizes)}
    if isinstance(source, AnnotatedSource):
        held = source.annotations
        digests |= {
            "objects": len(held.boxes),
            "image_ids": _digest(source.image_ids),
            "boxes": _digest(held.boxes, held.offsets),
            "labels": _digest(held.labels),
            "crowd": _digest(held.crowd),
        }
        if held.masks is not None:
            digests["masks"] = _digest(held.masks.content, held.masks.offsets)
    return digests if validation is None else {**digests, "validation": fingerprint(validation)}


def changed_entries(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lists what changed between two fingerprints: `images: 12 -> 11`, `boxes`.

    An entry that only one of them has is left out.
    """
    changed = [name for name in old if name in new and old[name] != new[name]]
    return [f"{name}: {old[name]} -> {new[name]}" if isinstance(new[name], int) else name for name in changed]


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
