"""Keeps what was learnt when a TFDS data set was checked, beside its data, so that it is checked once."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kfpn.data.annotation_checks import LOGGER, AnnotationFaults
from kfpn.data.annotations import Annotations

CACHE_VERSION = 1


def cache_file(builder: tfds.core.DatasetBuilder, split: str, *, masks: bool = False) -> Path:
    """Returns the file that belongs to a split of a data set, in the version and size that it has now."""
    info = builder.info.splits[split]
    key = f"{CACHE_VERSION} {builder.info.full_name} {split} {info.num_examples} {builder.info.dataset_size}"
    key += " masks" if masks else ""
    return Path(builder.data_dir) / f"kfpn-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def read_cache(
    cache: Path, count: int
) -> tuple[np.ndarray, np.ndarray, Annotations, dict[str, tuple[int, str]]] | None:
    """Returns sizes, image ids, annotations and what was put right; None where the file is missing or of another data set.

    Args:
        cache: of `cache_file`.
        count: how many images there must be.
    """
    try:
        with np.load(cache) as data:
            annotations = Annotations.from_arrays(
                {key: data[key] for key in data.files if key not in ("faults", "sizes")}
            )
            counts = {kind: (int(n), first) for kind, (n, first) in json.loads(str(data["faults"])).items()}
            return (data["sizes"], data["image_ids"], annotations, counts) if len(data["sizes"]) == count else None
    except Exception:  # missing, from another version or damaged: it can always be written again
        return None


def write_cache(
    cache: Path, sizes: np.ndarray, image_ids: np.ndarray, annotations: Annotations, faults: AnnotationFaults
) -> None:
    """Writes what `read_cache` reads, aside and renamed. Where it cannot be written, the check is done again each time."""
    held: dict[str, Any] = annotations.arrays()
    aside = cache.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            np.savez(file, sizes=sizes, image_ids=image_ids, faults=json.dumps(faults.counts), **held)
        os.replace(aside, cache)
    except OSError as error:
        LOGGER.info("%s can't be written (%s), so the data set is checked again each time", cache, error)
