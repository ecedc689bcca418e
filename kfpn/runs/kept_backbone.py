"""Keeps the file of a Keras model that is a run's backbone in its work directory, which is then complete."""

import dataclasses
import filecmp
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kfpn.config.backbone_names import is_keras_file, require_keras_file
from kfpn.config.run import Config

if TYPE_CHECKING:
    import keras

KEPT = "backbone.keras"
"""Name of the copy."""


def keep_backbone(folder: Path, backbone: str, is_begun: bool) -> None:
    """Copies the file of a backbone into a work directory, or checks that a run that goes on has the same one.

    Args:
        folder: the work directory.
        backbone: the setting of this name. Only files are kept.
        is_begun: whether the run has kept weights or checkpoints.

    Raises:
        ValueError: if the file is not there, is no file of Keras, or is another one than when the run began.
    """
    if not is_keras_file(backbone):
        return
    given, kept = Path(backbone), folder / KEPT
    if is_begun and kept.exists():
        if given.is_file() and not filecmp.cmp(given, kept, shallow=False):
            raise ValueError(
                f"model.backbone must be the file that {folder} began with, got {backbone}, which holds something else than "
                f"{kept}: bring the old file back or name that copy, or start anew with another --workdir"
            )
        return
    require_keras_file(given)
    if kept.exists() and os.path.samefile(given, kept):
        return
    aside = kept.with_name(f"{KEPT}.tmp")
    shutil.copyfile(given, aside)
    os.replace(aside, kept)


def with_written_backbone(folder: Path, config: Config, features: "keras.Model") -> Config:
    """Writes the Keras model that is a detector's backbone into a work directory, if the detector has one that no name builds.

    Args:
        folder: the work directory, which exists.
        config: with the detector's settings.
        features: of the detector's submodels.

    Returns:
        `config`, whose backbone is the file that was written; `config` itself for a backbone that a name builds.

    Raises:
        OSError: if it can't be written.
        ValueError: if Keras can't read what it wrote: the folder would be of no use.
    """
    if not is_keras_file(config.model.backbone):
        return config
    from kfpn.modeling.backbones.given_backbone import read_keras_file

    kept = folder / KEPT
    aside = kept.with_name(f"aside-{KEPT}")  # Keras wants this ending.
    try:
        features.get_layer("backbone").save(aside)
        read_keras_file(str(aside))
        os.replace(aside, kept)
    finally:
        aside.unlink(missing_ok=True)
    return with_kept_backbone(folder, config)


def with_kept_backbone(folder: Path, config: Config) -> Config:
    """Returns a configuration whose backbone is the copy in the work directory, if it is a file and there is a copy."""
    kept = folder / KEPT
    if not (is_keras_file(config.model.backbone) and kept.exists()):
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=str(kept)))


def with_old_name(config: Config, old: Config) -> Config:
    """Returns a configuration with the name that the backbone's file had when the run began: its content was compared."""
    if not (is_keras_file(config.model.backbone) and is_keras_file(old.model.backbone)):
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=old.model.backbone))
