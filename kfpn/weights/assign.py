"""Assigns weights that others trained to the variables of a detector: by name, and all of them or none."""

import dataclasses
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfpn.config.checks import require_local
from kfpn.config.model import ModelConfig
from kfpn.config.presets import preset
from kfpn.modeling.backbones import find_backbone
from kfpn.modeling.detector import inference_model
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.load import load_trained_detector
from kfpn.weights.built_detector import (
    SETTINGS_THAT_MAY_DIFFER,
    SETTINGS_THAT_MUST_MATCH,
    built_settings,
    mismatched_settings,
    variables_of,
)
from kfpn.weights.fitted_heads import fit_heads
from kfpn.weights.fitted_segments import BACKBONE_SETTINGS, SETTINGS_TO_MENTION, fit_segments, is_segmenter
from kfpn.weights.hubs import downloaded_folder
from kfpn.weights.identify import PathLike, read_trained_weights
from kfpn.weights.makers.foreign_arrays import foreign_shape, raise_mismatches
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights
from kfpn.weights.shipped import SHIPPED


def load_weights(model: keras.Model, source: PathLike, class_names: Sequence[str] | None = None) -> TrainedWeights:
    """Loads weights that were trained here or elsewhere into a detector, all of them or none.

    Args:
        model: of `build_detector` or `build_segmenter`, or `Submodels`. What proposes segments takes the backbone of any weights, the
            pyramid of those that have the same, and heads of those that were trained with `--task segments`. A warning says what is
            not taken.
        source: a file, a work directory or a name of `list_pretrained()`, see `read_trained_weights`.
        class_names: the names of the model's labels, in order. With them, each class's part of the predictor (class
            logits and box deltas) is taken by name, if the weights have all of these classes. Without them, or if a
            class is missing, a predictor of another number of classes stays as it is, and a warning says so.

    Returns:
        What was read.

    Raises:
        ValueError: if the source can't be read (see `read_trained_weights`), the model was built with settings that these
            weights do not work with, or a tensor is missing, left over or of another shape. The model is then as it was.
    """
    trained = read_trained_weights(source, "segments" if is_segmenter(variables_of(model)) else "detections")
    assign_weights(trained, model, built_settings(model), class_names)
    _warn_of_notes(trained)
    return trained


def _warn_of_notes(trained: TrainedWeights) -> None:
    # The notes of a backbone only say that its classifier was left out, which everybody expects.
    for note in trained.notes if trained.is_detector else ():
        warnings.warn(f"{trained.path}: {note}", stacklevel=3)


def assign_weights(
    trained: TrainedWeights, model: Any, settings: Mapping[str, Any], class_names: Sequence[str] | None = None
) -> None:
    """Assigns trained tensors to a model's variables, all of them or none.

    Args:
        trained: from `read_trained_weights`.
        model: a detector or what proposes segments, its submodels or their `weights_model`.
        settings: the fields of `ModelConfig` that the model was built with.
        class_names: the names of the model's labels, see `load_weights`.

    Raises:
        ValueError: see `load_weights`.
    """
    variables = variables_of(model)
    segments = is_segmenter(variables)
    has_heads = segments or "head_logits/bias" in variables
    if not has_heads or not _backbone_keys(variables, trained):
        raise ValueError(f"model must be a detector of kfpn.build_detector, got {model.name}, which lacks its layers")
    if segments:
        _check_settings(trained, settings, BACKBONE_SETTINGS, SETTINGS_TO_MENTION)
    else:
        _check_classes(variables, class_names)
        _check_settings(trained, settings, SETTINGS_THAT_MUST_MATCH, SETTINGS_THAT_MAY_DIFFER)
    tensors = dict(trained.tensors)
    fresh = _fresh_variables(trained, variables, tensors, settings, class_names)
    _check_tensors(trained.path, tensors, variables, fresh)
    for key, tensor in tensors.items():
        variables[key].assign(np.ascontiguousarray(tensor.value, np.float32))


def _backbone_keys(keys: Iterable[str], trained: TrainedWeights) -> set[str]:
    stages = find_backbone(trained.model["backbone"]).STAGES
    return {key for key in keys if key.split("/")[0].split("_")[0] in stages}


def _check_classes(variables: Mapping[str, Any], class_names: Sequence[str] | None) -> None:
    classes = int(variables["head_logits/bias"].shape[0]) - 1
    if class_names is not None and len(class_names) != classes:
        raise ValueError(f"class_names must be {classes}, one a class, got {len(class_names)}")


def _check_settings(
    trained: TrainedWeights, settings: Mapping[str, Any], must_match: Sequence[str], may_differ: Sequence[str]
) -> None:
    """Raises if a setting makes the weights useless, and warns of one that may be changed on purpose."""
    unused = find_backbone(trained.model["backbone"]).unused_settings(trained.model["backbone"])
    own = {name: value for name, value in trained.model.items() if name not in unused}
    useless = mismatched_settings(must_match, settings, own)
    changed = mismatched_settings(may_differ, settings, own)
    if useless:
        raise ValueError(
            f"{trained.path}: the model must be built as these weights were trained, with {', '.join(useless)}. "
            "kfpn.load_detector and kfpn train --init take these settings by themselves"
        )
    # The weights in the package are made to start from, with anchors that fit one's own objects.
    if changed and trained.path not in SHIPPED:
        warnings.warn(f"{trained.path} was trained with {', '.join(changed)}", stacklevel=4)


def _check_tensors(path: str, tensors: Mapping[str, Tensor], variables: Mapping[str, Any], fresh: set[str]) -> None:
    """Raises if tensors and variables, but for the fresh ones, are not one to one and of the same shapes."""
    shapes = [
        f"{tensors[key].name} {tensors[key].shape} instead of {foreign_shape(tuple(variable.shape), tensors[key].layout)} for {key}"
        for key, variable in variables.items()
        if key in tensors and tuple(variable.shape) != tensors[key].value.shape
    ]
    missing = [
        f"{key} {tuple(variable.shape)}"
        for key, variable in variables.items()
        if key not in tensors and key not in fresh
    ]
    left = [f"{tensor.name} {tensor.shape}" for key, tensor in tensors.items() if key not in variables]
    raise_mismatches(path, {"missing": missing, "left over": left, "of another shape": shapes})


def _fresh_variables(
    trained: TrainedWeights,
    variables: Mapping[str, Any],
    tensors: dict[str, Tensor],
    settings: Mapping[str, Any],
    class_names: Sequence[str] | None,
) -> set[str]:
    """Fits `tensors` in place to the model's heads and classes, and returns the keys of the variables that stay as they are."""
    segments = is_segmenter(variables)
    if not trained.is_detector:
        rest = "pyramid and heads of windows" if segments else "pyramid, RPN and heads"
        warnings.warn(f"{trained.path} is a backbone: {rest} are left fresh", stacklevel=4)
        return variables.keys() - _backbone_keys(variables, trained)
    if segments:
        return fit_segments(trained, variables, tensors, settings)
    return fit_heads(trained, variables, tensors, class_names)


def model_config(trained: TrainedWeights, **changes: Any) -> ModelConfig:
    """Returns the `ModelConfig` of a detector that computes what the trained one did.

    Args:
        trained: from `read_trained_weights`. A backbone only sets the fields that it decides; the others have their defaults.
        changes: fields that shall have other values.
    """
    return ModelConfig(**{**trained.model, **changes})


def load_detector(source: PathLike, padded: bool = False) -> keras.Model:
    """Loads a trained detector: that of a work directory, or one that others trained.

    Args:
        source: a work directory of `kfpn train`, `kfpn.save_detector` or `kfpn import-weights`; a detector's weights, see
            `read_trained_weights`; or such a folder on a hub, "hf://USER/NAME" or "kaggle://USER/MODEL/FRAMEWORK/VARIATION", which
            its library downloads once.
        padded: give the model the second input `image_sizes`, see `build_detector`.

    Returns:
        The inference model under the current Keras dtype policy, with the attributes `class_names` and `category_ids`,
        tuples over labels, and `input_config`, the rule by which its images are resized. A work directory with best
        thresholds (`kfpn evaluate --best-thresholds`) gives `thresholds` as well, which `kfpn.predict` uses. A work directory gives the best weights that its evaluations have seen.

    Raises:
        ValueError: if the source does not exist, holds no detector or can't be read, see `read_trained_weights`.
        ModuleNotFoundError: if the library of a hub is not installed.
    """
    source = downloaded_folder(source) or source
    require_local("source", source)
    if os.path.isdir(source) or not (os.path.exists(source) or ":" in os.fspath(source)):
        return load_trained_detector(source, padded)
    trained = read_trained_weights(source)
    if not trained.is_detector:
        raise ValueError(f"{trained.path}: must be a detector, got {trained.kind}: train one with kfpn train --init")
    config = model_config(trained)
    submodels = build_submodels(config)
    assign_weights(trained, submodels, {})
    _warn_of_notes(trained)
    model = inference_model(submodels, config, padded)
    model.class_names, model.category_ids = trained.names_of_classes()
    model.input_config = dataclasses.replace(preset("coco").input, **trained.input)
    return model


def from_preset(source: PathLike, padded: bool = False) -> keras.Model:
    """Loads a trained detector: `kfpn.load_detector` under the name that KerasHub gives to it.

    Args:
        source, padded: see `load_detector`.

    Returns:
        The inference model, see `load_detector`.

    Raises:
        ValueError, ModuleNotFoundError: as `load_detector`.
    """
    return load_detector(source, padded)
