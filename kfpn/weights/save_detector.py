"""Writes a detector into a folder that `kfpn.load_detector` and the commands read: a work directory with weights and no training."""

import os
from contextlib import suppress
from typing import Any

import keras

from kfpn.config.checks import require_local
from kfpn.config.run import Config
from kfpn.modeling.submodels import Submodels
from kfpn.runs.atomic_files import write_aside
from kfpn.runs.finite_weights import path_of_nonfinite
from kfpn.runs.kept_backbone import KEPT, with_written_backbone
from kfpn.runs.thresholds import weights_digest, write_thresholds
from kfpn.runs.workdir import WEIGHTS, Workdir
from kfpn.weights.built_detector import policy_of
from kfpn.weights.detector_parts import input_rule_of, settings_of, submodels_of
from kfpn.weights.model_card import CARD, model_card

FILES = ("config.json", "classes.json", "thresholds.json", KEPT, WEIGHTS, CARD)
"""What is written, and what is downloaded of a repository, which may hold more."""


def save_detector(detector: keras.Model, path: str | os.PathLike, description: str = "") -> None:
    """Writes a detector into a folder, to share it: `kfpn.load_detector(path)` gives it back.

    The folder is a work directory as `kfpn import-weights` writes one: `kfpn evaluate`, `predict`, `export` and `train --init` take it.
    It holds the settings (config.json), the names of the labels (classes.json), the weights (detector.weights.h5), the backbone where
    it is a Keras model that no name builds (backbone.keras), the thresholds of the classes if they were measured (thresholds.json), and
    a model card (README.md), with the fields that Hugging Face reads.

    Args:
        detector: of `kfpn.build_detector` or `kfpn.load_detector`, with an `input_config`, the rule by which images are resized.
        path: of the folder, which does not exist, or holds no run and none of these files.
        description: what the model card says first: what the detector is for, what it was trained on, its figures, its licence.

    Raises:
        ValueError: if `path` holds a run or one of these files, or can't be written; if the detector is none, has no `input_config`,
            weights that are not finite, or a backbone that Keras can't read from a file. Nothing is written then.
        OSError: if the disk is full. What was written is removed.
    """
    require_local("path", path)
    if not isinstance(description, str):
        raise ValueError(f"description must be text, got {description!r}")
    model, rule = settings_of(detector), input_rule_of(detector)
    parts, folder = submodels_of(detector), Workdir(path)
    _require_finite(parts.weights_model)
    _require_free(folder)
    precision: Any = policy_of(detector)
    config = Config(workdir=str(path), model=model, input=rule, precision=precision)
    is_new = not folder.path.exists()
    folder.check_writable()
    try:
        _write_files(detector, folder, config, parts, description)
    except BaseException:
        for name in FILES:
            (folder.path / name).unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # Of a full disk, or somebody else's file is there by now.
                folder.path.rmdir()
        raise


def _write_files(detector: keras.Model, folder: Workdir, config: Config, parts: Submodels, description: str) -> None:
    """Writes the files. config.json is the last: a folder without it does not count as a work directory yet."""
    names = detector.class_names
    config = with_written_backbone(folder.path, config, parts.features)
    folder.save_weights(parts.weights_model)
    if thresholds := getattr(detector, "thresholds", ()):
        rows = [{"name": name, "threshold": value} for name, value in zip(names, thresholds, strict=True)]
        write_thresholds(folder, rows, {"weights": weights_digest(folder)})
    write_aside(folder.path / CARD, model_card(config, names, folder.path.resolve().name, description))
    folder.prepare(config, names, detector.category_ids, description.partition("\n")[0] or detector.name)


def _require_free(folder: Workdir) -> None:
    """Checks that nothing in a folder would be replaced."""
    if folder.config.exists() or folder.holds_training():
        raise ValueError(
            f"path must be a folder without a run, got {str(folder.path)!r}, which has one: name another folder"
        )
    if there := [name for name in FILES if (folder.path / name).exists()]:
        raise ValueError(
            f"path must be a folder without {', '.join(there)}, got {str(folder.path)!r}: name another folder, or remove what would be replaced"
        )


def _require_finite(weights_model: keras.Model) -> None:
    if bad := path_of_nonfinite(weights_model.variables):
        raise ValueError(
            f"detector must have finite weights, got NaN or inf in {bad}: its training has failed, so save another one"
        )
