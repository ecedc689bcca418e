"""What a data set held when a run began, in a few numbers: a run is a function of its data."""

import hashlib
from typing import Any

import numpy as np

from kfpn.data.annotations import AnnotatedSource
from kfpn.data.record import Source


def fingerprint(source: Source, validation: Source | None = None) -> dict[str, Any]:
    """Returns counts and digests of a data set's annotations; pixels are not read.

    Args:
        source: the data set.
        validation: another one, whose fingerprint is kept with this one's under `validation`; None: none is.

    Returns:
        dict: `images`, int; `sizes`, a digest of their heights and widths in order; of sources whose annotations are at hand
        also `objects`, int, and digests of `image_ids`, `boxes`, `labels` and `crowd`.
    """
    found: dict[str, Any] = {"images": len(source), "sizes": _digest(source.sizes)}
    if isinstance(source, AnnotatedSource):
        held = source.annotations
        found |= {
            "objects": len(held.boxes),
            "image_ids": _digest(source.image_ids),
            "boxes": _digest(held.boxes, held.offsets),
            "labels": _digest(held.labels),
            "crowd": _digest(held.crowd),
        }
    return found if validation is None else {**found, "validation": fingerprint(validation)}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lists what changed between two fingerprints: `images: 12 -> 11`, `boxes`.

    What only one of them knows is passed over.
    """
    changed = [name for name in old if name in new and old[name] != new[name]]
    return [f"{name}: {old[name]} -> {new[name]}" if isinstance(new[name], int) else name for name in changed]


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
