"""Shows what a data set holds: tables of its splits, and a contact sheet."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kfpn.cli.augmented_tiles import augmented_tiles, training_part
from kfpn.cli.options import LookAtData
from kfpn.config.checks import require_local
from kfpn.config.run import Config
from kfpn.data.class_table import describe_source
from kfpn.data.dataset_checks import check_training_set, rough_measure_line
from kfpn.data.formats import data_folder, named_splits, open_untouched, run_name, splits_itself
from kfpn.data.image import load_image
from kfpn.data.object_sizes import describe_objects, example_images
from kfpn.data.own_augment import load_function
from kfpn.data.own_split import SHARE, validation_images
from kfpn.data.record import Record, Source
from kfpn.data.repeat_factors import describe_order
from kfpn.data.source_masks import have_masks
from kfpn.plotting.contact_sheet import Tile, draw_contact_sheet
from kfpn.training.automatic import choose_for_run, start_config


def report_data(command: LookAtData) -> int:
    """Prints what each split of a data set holds and draws a contact sheet of its first one; nothing is written beside the data.

    Returns:
        The exit code, 0.

    Raises:
        ValueError: if the data can't be opened or split, hold nothing to learn from, or the sheet would lie among them; or if
            training could not see them as the options say.
    """
    if command.augment:
        load_function(command.augment)
    splits = named_splits(command.data)
    output = _output(command)
    first: Source | None = None
    measured = 0
    for split, name in splits.items():
        source = open_untouched(name, split, masks=True)
        print("\n".join(filter(None, (describe_source(source), describe_objects(source)))), flush=True)
        first = source if first is None or split == "train" else first
        measured = len(source) if split == "validation" else measured
    if first is None:
        raise ValueError(f"data must have a split, got none in {command.data}")
    _draw(command, first, output, "validation" in splits)
    if "train" not in splits:
        if Path(command.data).expanduser().is_dir():  # not one split that was asked for
            print(
                f"no training split: kfpn train takes this data set only by a split's name, --data {next(iter(splits.values()))}"
            )
        return 0
    check_training_set(first)
    if "validation" not in splits:
        measured = _kept(command.data, first)
        print(f"no validation split: {_own_split(command.data, first, measured)} (see --val-share of kfpn train)")
    if measured and (line := rough_measure_line(measured, None if "validation" in splits else len(first))):
        print(line)
    print(
        "\n".join(
            [
                f"kfpn train --data {command.data} would choose on this machine:",
                *_choices(command, first, "validation" in splits),
                *(["  --mask would learn the masks as well"] if have_masks(first) else []),
            ]
        )
    )
    return 0


def _choices(command: LookAtData, source: Source, has_validation: bool) -> list[str]:
    """Returns what the preset `auto` chooses from random weights, a line each."""
    part = training_part(command, source, has_validation)
    return [f"  {line}" for line in choose_for_run(start_config(command.data, None), part, None, {}).lines]


def _draw(command: LookAtData, source: Source, output: Path, has_validation: bool) -> None:
    """Draws the contact sheet and says what is on it."""
    if not command.augmented:
        draw_contact_sheet(source.name, _tiles(source, command.images), source.class_names, output)
        print(f"{output}: {min(command.images, len(source))} of {len(source)} images with their {_drawn(source)}")
        return
    part = training_part(command, source, has_validation)
    for line in describe_order(part, command.input):
        print(line)
    title = f"{part.name}, as training sees it"
    draw_contact_sheet(title, augmented_tiles(command, part), source.class_names, output)
    print(f"{output}: the first {command.images} images of training, resized and augmented, with their {_drawn(part)}")


def _drawn(source: Source) -> str:
    return "boxes and masks" if have_masks(source) else "boxes"


def _kept(data: str, source: Source) -> int:
    """Returns how many images training keeps to evaluate on where nothing else is asked for."""
    return int(validation_images(source, SHARE, Config().seed, asked=False).sum()) if splits_itself(data) else 0


def _own_split(data: str, source: Source, kept: int) -> str:
    """Says what training keeps to evaluate on where nothing else is asked for."""
    if not splits_itself(data):
        return "nothing is evaluated without --val-data or --val-share"
    if not kept:
        return f"nothing is evaluated without --val-data, for {len(source)} images are too few to keep some"
    return f"a tenth of the images is kept to evaluate on, {kept} of {len(source)}"


def _tiles(source: Source, count: int) -> Iterator[Tile]:
    for index in example_images(source, count):
        record = source[index]
        crowd = int(record.crowd.sum())
        numbers = f"{len(record.boxes) - crowd} objects{f', {crowd} crowd' if crowd else ''}"
        name = os.path.basename(record.name) if isinstance(record.image, str) else record.name
        yield Tile(
            load_image(record),
            record.boxes,
            record.labels,
            record.crowd,
            f"{name[-28:]}: {numbers}",
            _masks_on_tile(record),
        )


def _masks_on_tile(record: Record) -> Callable[[int], np.ndarray | None] | None:
    masks = record.masks
    if masks is None or not (exists := masks.exists).any():
        return None
    return lambda i: masks.bitmap(i) if exists[i] else None


def _output(command: LookAtData) -> Path:
    """Returns where to write the sheet: never among the data. Where they are the current folder, it is the one for temporary files."""
    folder = data_folder(command.data)
    name = f"{run_name(command.data)}-contact.png"
    output = Path(command.output) if command.output else Path(name)
    require_local("output", command.output)
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"output must end in .png or .jpg, got {output}")
    if not output.parent.is_dir() or output.is_dir():
        raise ValueError(f"output must be the name of a file in a folder that is there, got {output}")
    if folder is None or folder not in (output.resolve(), *output.resolve().parents):
        return output
    if command.output:
        raise ValueError(f"output must lie outside of the data, got {output}: nothing is written into {folder}")
    return Path(tempfile.gettempdir(), name)
