"""Makes the tiles of a contact sheet that shows images as training sees them: resized and augmented, with their boxes."""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from kfpn.cli.options import LookAtData
from kfpn.config.run import Config
from kfpn.data.formats import splits_itself
from kfpn.data.own_split import SHARE, part_of, validation_images
from kfpn.data.record import Source
from kfpn.plotting.contact_sheet import Tile


def training_config(command: LookAtData) -> Config:
    """Returns a configuration that has what decides the batches of the training that a sheet shows."""
    fields = {name: getattr(command, name) for name in ("data", "input", "augment", "seed", "batch_size")}
    return dataclasses.replace(Config(), **fields)


def training_part(command: LookAtData, source: Source, has_validation: bool) -> Source:
    """Returns the images that training takes where it keeps a share of them to evaluate on without being asked."""
    if has_validation or not splits_itself(command.data):
        return source
    kept = validation_images(source, SHARE, command.seed, asked=False)
    return part_of(source, np.flatnonzero(~kept), "training part") if kept.any() else source


def augmented_tiles(command: LookAtData, source: Source) -> Iterator[Tile]:
    """Yields the first `command.images` training samples, in the order in which training takes them, without their padding.

    Raises:
        ValueError: for an image that can't be read, or a function of `augment` that fails.
    """
    # TensorFlow takes seconds to import, and the plain sheet does without it.
    from kfpn.data.pipeline import named_errors, train_batches

    left = command.images
    for batch in named_errors(train_batches(source, training_config(command))):
        arrays = {name: value.numpy() for name, value in batch.items()}
        for row in range(min(left, len(arrays["images"]))):
            yield _tile({name: value[row] for name, value in arrays.items()}, source)
        left -= len(arrays["images"])
        if left <= 0:
            return


def _tile(sample: dict[str, np.ndarray], source: Source) -> Tile:
    height, width = sample["image_sizes"].tolist()
    real = sample["gt_labels"] >= 0
    crowd = sample["gt_crowd"][real]
    record = source[int(sample["record_index"])]
    name = os.path.basename(record.name) if isinstance(record.image, str) else record.name
    count = int((~crowd).sum())
    caption = f"{name[-20:]}: {count} object{'' if count == 1 else 's'}, {width} x {height}"
    return Tile(sample["images"][:height, :width], sample["gt_boxes"][real], sample["gt_labels"][real], crowd, caption)
