"""Opens the data that a run trains and validates on; data without a validation split are split by image."""

import hashlib
import logging
import os
import re

import numpy as np

from kfpn.config.run import Config
from kfpn.data import formats
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.record import Record, Source

LOGGER = logging.getLogger("kfpn")

SHARE = 0.1
"""Of the images, where nobody says another: enough to measure on, and little that isn't trained on."""
LEAST = 2
"""Images of a part: one says nothing."""
_KEPT_BACK = "validation part"

# Roboflow writes photo_jpg.rf.HASH.jpg for each copy of a photograph that it has turned or coloured.
_COPY = re.compile(r"\.rf\.[0-9a-zA-Z]{8,}(?=\.)")


class PartSource:
    """Reads some of the images of a source.

    Args:
        source: the data set.
        indices: of the images.
        name: what messages call the part.
    """

    def __init__(self, source: Source, indices: np.ndarray, name: str) -> None:
        self.name = name
        self.class_names, self.category_ids = source.class_names, source.category_ids
        self.sizes, self.max_boxes = np.asarray(source.sizes)[indices], source.max_boxes
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        """Returns image `index` of the part."""
        return self._source[int(self._indices[index])]


def open_run_sources(config: Config) -> tuple[Source, Source | None]:
    """Opens what a run trains on and what it is evaluated on, None where it has no such data.

    Args:
        config: the run's: `data`, `val_data`, `val_share`, `seed` and `check_images` count.

    Raises:
        ValueError: when data can't be opened or split.
    """
    val_data = _val_data(config)
    source = formats.open_source(config.data, "train", config.check_images, config.model.learns_masks)
    if val_data is not None:
        return source, formats.open_source(val_data, "validation", config.check_images, config.model.learns_masks)
    share = _share(config)
    return split_by_image(source, share, config.seed, asked=config.val_share is not None) if share else (source, None)


def open_validation(config: Config, split: str = "validation") -> Source | None:
    """Opens what a run is evaluated on, None where it has no such data; see `open_run_sources`.

    Args:
        config: the run's.
        split: of the validation data, where their name does not say one.
    """
    val_data = _val_data(config)
    if val_data is not None:
        return formats.open_source(val_data, split, config.check_images, config.model.learns_masks)
    return open_run_sources(config)[1] if _share(config) else None


def _val_data(config: Config) -> str | None:
    val_data = config.val_data or formats.default_val_data(config.data)
    if val_data is not None and config.val_share:
        raise ValueError(f"val_share must be left out, got {config.val_share:g}: {val_data} is there to evaluate on")
    return val_data


def _share(config: Config) -> float:
    return config.val_share if config.val_share is not None else SHARE if formats.splits_itself(config.data) else 0.0


def split_by_image(source: Source, share: float, seed: int, *, asked: bool = True) -> tuple[Source, Source | None]:
    """Splits a data set into images to train on and images to evaluate on, and logs how many there are.

    The order of the images is that of a digest of the seed and the image's name, seen from the folder of all images, so it is the
    same in each process and on each machine, and an image that is added moves no other one much. Copies of one photograph, and
    one file that is listed twice, stay together.

    Args:
        source: the data set.
        share: of the images to evaluate on.
        seed: another one gives other images.
        asked: False: where there are too few images, at least two are taken, and fewer than four are not split.

    Returns:
        The images to train on, and those to evaluate on, None where they are too few.

    Raises:
        ValueError: when a part would have fewer than two images.
    """
    taken = validation_images(source, share, seed, asked=asked)
    count, kept = len(source), int(taken.sum())
    if not kept:
        few = "1 image is" if count == 1 else f"{count} images are"
        LOGGER.warning("%s: not split, %s too few: nothing is left to evaluate on", source.name, few)
        return source, None
    LOGGER.warning(
        "%s: has no validation split, so %d of its %d images are kept to evaluate on, drawn by seed %d (--val-share, in Python val_share)",
        source.name, kept, count, seed,
    )  # fmt: skip
    return part_of(source, np.flatnonzero(~taken), "training part"), part_of(source, np.flatnonzero(taken), _KEPT_BACK)


def is_kept_back(source: Source) -> bool:
    """Tells whether a source is what `split_by_image` keeps to evaluate on."""
    return source.name.endswith(f"({_KEPT_BACK})")


def validation_images(source: Source, share: float, seed: int, *, asked: bool = True) -> np.ndarray:
    """Tells which images `split_by_image` keeps to evaluate on.

    Args:
        source, share, seed, asked: as for `split_by_image`.

    Returns:
        (N,) bool, one for each image; none is True where they are too few.

    Raises:
        ValueError: as `split_by_image`.
    """
    count = len(source)
    wanted = round(share * count)
    if not asked:
        if count < 2 * LEAST:
            return np.zeros(count, bool)
        wanted = max(LEAST, wanted)
    taken = _taken(_photographs(source), wanted, seed)
    parts = count - int(taken.sum()), int(taken.sum())
    if min(parts) < LEAST:
        raise ValueError(
            f"val_share must leave at least {LEAST} images to train on and to evaluate on, got {share:g} of {count} images of "
            f"{source.name}, which is {parts[0]} and {parts[1]}: use another share, or give --val-data"
        )
    return taken


def _photographs(source: Source) -> list[str]:
    """Returns a key of each image, the same for those that show one photograph."""
    paths = source.image_files() if isinstance(source, AnnotatedSource) else []
    if not paths:
        ids = source.image_ids if isinstance(source, AnnotatedSource) else range(len(source))
        return [str(number) for number in ids]
    above = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [_COPY.sub("", os.path.relpath(path, above).replace(os.sep, "/")) for path in paths]


def _taken(keys: list[str], wanted: int, seed: int) -> np.ndarray:
    """Returns which images are to be evaluated on: those of the first keys by their digests, until there are enough."""
    digests = {key: hashlib.sha256(f"{seed} {key}".encode("utf-8", "surrogateescape")).digest() for key in set(keys)}
    counts = dict.fromkeys(digests, 0)
    for key in keys:
        counts[key] += 1
    chosen: set[str] = set()
    number = 0
    for key in sorted(digests, key=lambda key: (digests[key], key)):
        if number >= wanted:
            break
        chosen.add(key)
        number += counts[key]
    return np.asarray([key in chosen for key in keys], bool)


def part_of(source: Source, indices: np.ndarray, what: str) -> Source:
    """Returns some of the images of a source as a source of its own.

    Args:
        source: the data set.
        indices: of the images.
        what: stands behind the data set's name in messages.
    """
    name = f"{source.name} ({what})"
    if not isinstance(source, AnnotatedSource):
        return PartSource(source, indices, name)
    return source.part(indices, name)
