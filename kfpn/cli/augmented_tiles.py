"""Makes the tiles of a contact sheet that shows images as training sees them: resized and augmented, with their boxes."""

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from kfpn.cli.options import LookAtData
from kfpn.config.model import ModelConfig
from kfpn.config.run import Config
from kfpn.data.formats import splits_itself
from kfpn.data.numpy_batches import stacked_batches
from kfpn.data.own_split import SHARE, part_of, validation_images
from kfpn.data.record import Source
from kfpn.data.sample_arrays import TrainingSamples
from kfpn.data.source_masks import have_masks
from kfpn.plotting.contact_sheet import Tile


def training_config(command: LookAtData, *, has_masks: bool = False) -> Config:
    """Returns a configuration that has what decides the batches of the training that a sheet shows, with masks or without."""
    fields = {name: getattr(command, name) for name in ("data", "input", "augment", "seed", "batch_size")}
    # The masks that the data have are drawn too.
    return dataclasses.replace(Config(), model=ModelConfig(mask=has_masks), **fields)


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
    left, has_masks = command.images, have_masks(source)
    samples = TrainingSamples(source, training_config(command, has_masks=has_masks))
    for arrays in stacked_batches(samples, samples.planned(0)):
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
    boxes = sample["gt_boxes"][real]
    mask_of = _mask_on_tile(sample, boxes, (height, width)) if "gt_masks" in sample else None
    return Tile(sample["images"][:height, :width], boxes, sample["gt_labels"][real], crowd, caption, mask_of)


def _mask_on_tile(
    sample: dict[str, np.ndarray], boxes: np.ndarray, size: tuple[int, int]
) -> Callable[[int], np.ndarray | None]:
    """Returns the function that draws the mask of object i from its grid over its box, as training gets it."""
    real = np.flatnonzero(sample["gt_labels"] >= 0)

    def mask_of(i: int) -> np.ndarray | None:
        if not sample["gt_has_mask"][real[i]]:
            return None
        top, left, bottom, right = (round(float(side)) for side in boxes[i])
        drawn = np.zeros(size, bool)
        if bottom > top and right > left:
            cells = Image.fromarray(sample["gt_masks"][real[i]] * np.uint8(255))
            inside = np.asarray(cells.resize((right - left, bottom - top), Image.Resampling.BILINEAR)) > 127
            drawn[top:bottom, left:right] = inside[: size[0] - top, : size[1] - left]
        return drawn

    return mask_of
