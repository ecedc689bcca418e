"""Writes a detector into a folder that `kfpn.load_detector` and the commands read: a work directory with weights and no training."""

import os
from typing import Any

import keras

from kfpn.config.checks import require_local
from kfpn.config.run import Config
from kfpn.runs.atomic_files import write_aside
from kfpn.runs.kept_backbone import with_written_backbone
from kfpn.runs.thresholds import weights_digest, write_thresholds
from kfpn.runs.workdir import Workdir
from kfpn.weights.built_detector import policy_of
from kfpn.weights.detector_parts import input_rule_of, settings_of, submodels_of
from kfpn.weights.model_card import CARD, model_card


def save_detector(detector: keras.Model, path: str | os.PathLike, description: str = "") -> None:
    """Writes a detector into a folder, to share it: `kfpn.load_detector(path)` gives it back.

    The folder is a work directory as `kfpn import-weights` writes one: `kfpn evaluate`, `predict`, `export` and `train --init` take it.
    It holds the settings (config.json), the names of the labels (classes.json), the weights (detector.weights.h5), the backbone where
    it is a Keras model that no name builds (backbone.keras), the thresholds of the classes if they were measured (thresholds.json), and
    a model card (README.md), with the fields that Hugging Face reads.

    Args:
        detector: of `kfpn.build_detector` or `kfpn.load_detector`, with an `input_config`, the rule by which images are resized.
        path: of the folder, which does not exist or holds no run.
        description: what the model card says first: what the detector is for, what it was trained on, its figures, its licence.

    Raises:
        ValueError: if `path` holds a run or can't be written, or the detector is none or has no `input_config`. Nothing is written then.
        OSError: if the disk is full.
    """
    require_local("path", path)
    model, rule = settings_of(detector), input_rule_of(detector)
    folder = Workdir(path)
    if folder.config.exists() or folder.holds_training():
        raise ValueError(f"path must be a folder without a run, got {str(path)!r}, which has one: name another folder")
    parts = submodels_of(detector)
    precision: Any = policy_of(detector)
    config = Config(workdir=str(path), model=model, input=rule, precision=precision)
    names = detector.class_names
    folder.check_writable()
    # The weights come first, because a folder without a config.json does not count as a work directory yet.
    folder.save_weights(parts.weights_model)
    config = with_written_backbone(folder.path, config, parts.features)
    if thresholds := getattr(detector, "thresholds", ()):
        rows = [{"name": name, "threshold": value} for name, value in zip(names, thresholds, strict=True)]
        write_thresholds(folder, rows, {"weights": weights_digest(folder)})
    write_aside(folder.path / CARD, model_card(config, names, folder.path.name, description))
    folder.prepare(config, names, detector.category_ids, description.partition("\n")[0] or detector.name)
