"""From a checkpoint of any known kind to the variables of a detector: by name, all or nothing."""

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kfpn.config.backbone_names import BACKBONES
from kfpn.config.model import ModelConfig
from kfpn.modeling.backbones import find_backbone
from kfpn.modeling.detector import inference_model
from kfpn.modeling.submodels import build_submodels
from kfpn.runs import load as trained
from kfpn.weights.identify import PathLike, layers_of, read_checkpoint, variables_of
from kfpn.weights.trained_weights import Checkpoint, Tensor, complain, foreign_shape

# These make other numbers of the same weights: no detector works with others than it was trained with.
BOUND = ("backbone", "norm", "stride_on", "pixel_mean", "pixel_std", "pyramid", "upsampling", "merge")
# These one may change on purpose, and train on.
LOOSE = ("norm_epsilon", "anchor_sizes", "aspect_ratios", "round_anchors", "anchor_strides", "aligned", "sampling_ratio")  # fmt: skip

PREDICTOR = ("head_logits", "head_deltas")


def settings_of(model: keras.Model) -> dict[str, Any]:
    """Returns those fields of `ModelConfig` that decide about the numbers, as a detector's layers have them."""
    layers = layers_of(model)
    settings: dict[str, Any] = {}
    if "normalize" in layers:
        settings |= {"pixel_mean": layers["normalize"].mean, "pixel_std": layers["normalize"].std}
    for backbone in BACKBONES:
        settings |= importlib.import_module(f"kfpn.modeling.backbones.{backbone}").settings_of(layers)
    settings |= _pyramid_of(layers)
    for name in ("roi_align", "proposals"):
        settings |= {
            field: getattr(layers[name], field) for field in LOOSE if name in layers and hasattr(layers[name], field)
        }
    return settings


def _pyramid_of(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns pyramid, upsampling and merge as far as the layers show them: two pyramids may have the same variables."""
    levels = layers["roi_align"].levels if "roi_align" in layers else ("P2", "P3")
    if len(levels) == 1:
        return {"pyramid": "finest" if levels[0] == "P2" else levels[0].lower()}
    for name, pyramid in (("merge_2", "fpn"), ("upsample_2", "top_down")):
        if name in layers:
            own = [field for field in ("upsampling", "merge") if hasattr(layers[name], field)]
            return {"pyramid": pyramid, **{field: getattr(layers[name], field) for field in own}}
    return {"pyramid": "bottom_up"} if "lateral_2" in layers else {}


def load_weights(model: keras.Model, source: PathLike, class_names: Sequence[str] | None = None) -> Checkpoint:
    """Loads weights that were trained here or elsewhere into a detector, all of them or none.

    Args:
        model: of `build_detector`, or `Submodels`.
        source: see `read_checkpoint`.
        class_names: of the model's labels. With them the predictor's rows are taken by name where the checkpoint has all
            of these classes; without, or where it hasn't, the predictor is left as it is if the number of classes differs.
            A warning says so.

    Returns:
        What was read.

    Raises:
        ValueError: if the file can't be read (see `read_checkpoint`), the model was built with settings that these weights
            don't work with, or a tensor is missing, left over or of another shape. The model is as it was.
    """
    checkpoint = read_checkpoint(source)
    apply(checkpoint, model, settings_of(model), class_names)
    _say_notes(checkpoint)
    return checkpoint


def _say_notes(checkpoint: Checkpoint) -> None:
    # Of a backbone they say no more than that its classifier is left out.
    for note in checkpoint.notes if checkpoint.is_detector else ():
        warnings.warn(f"{checkpoint.path}: {note}", stacklevel=3)


def apply(
    checkpoint: Checkpoint, model: Any, settings: Mapping[str, Any], class_names: Sequence[str] | None = None
) -> None:
    """Assigns a checkpoint's tensors to a model's variables, see `load_weights`.

    Args:
        checkpoint: from `read_checkpoint`.
        model: a detector, its submodels or `weights_model`.
        settings: fields of `ModelConfig` the model was built with.
        class_names: see `load_weights`.
    """
    variables = variables_of(model)
    if not {"stem_conv/kernel", "head_logits/bias"} <= variables.keys():
        raise ValueError(f"model must be a detector of kfpn.build_detector, got {model.name}, which lacks its layers")
    classes = int(variables["head_logits/bias"].shape[0]) - 1
    if class_names is not None and len(class_names) != classes:
        raise ValueError(f"class_names must be {classes}, one a class, got {len(class_names)}")
    _check_settings(checkpoint, settings)
    tensors = dict(checkpoint.tensors)
    fresh = _fresh(checkpoint, variables, tensors, class_names)
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
    complain(checkpoint.path, {"missing": missing, "left over": left, "of another shape": shapes})
    for key, tensor in tensors.items():
        variables[key].assign(np.ascontiguousarray(tensor.value, np.float32))


def _check_settings(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> None:
    unused = find_backbone(checkpoint.model["backbone"]).unused_settings(checkpoint.model["backbone"])

    def differing(names: Sequence[str]) -> list[str]:
        both = [name for name in names if name in settings and name in checkpoint.model and name not in unused]
        return [
            f"{name}={checkpoint.model[name]!r} (the model has {settings[name]!r})"
            for name in both
            if not _same(settings[name], checkpoint.model[name])
        ]

    bound, loose = differing(BOUND), differing(LOOSE)
    if bound:
        raise ValueError(
            f"{checkpoint.path}: the model must be built as these weights were trained, with {', '.join(bound)}. "
            "kfpn.load_detector and kfpn train --init take these settings by themselves"
        )
    if loose:
        warnings.warn(f"{checkpoint.path} was trained with {', '.join(loose)}", stacklevel=4)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (bool, str)):
        # All batch norms have the same variables.
        return a == b or (a != "gn" and b != "gn" and {a, b} <= {"frozen_bn", "bn", "sync_bn"})
    return len(np.ravel(a)) == len(np.ravel(b)) and bool(np.allclose(a, b, rtol=1e-5, atol=1e-8))


def _fresh(
    checkpoint: Checkpoint, variables: Mapping[str, Any], tensors: dict[str, Tensor], class_names: Sequence[str] | None
) -> set[str]:
    """Takes from `tensors` what does not fit this model's classes; returns the keys of variables that stay as they are."""
    if not checkpoint.is_detector:
        warnings.warn(f"{checkpoint.path} is a backbone: pyramid, RPN and box head are left fresh", stacklevel=4)
        return {key for key in variables if not key.startswith(("stem_", "conv"))}
    old, new = checkpoint.model["num_classes"], int(variables["head_logits/bias"].shape[0]) - 1
    names, known = tuple(class_names or ()), checkpoint.class_names or ()
    if names and known and names != known and all(known.count(name) == 1 for name in names):
        _take_classes(tensors, [known.index(name) for name in names], old)
        return set()
    if old == new and (not names or not known or names == known):
        return set()
    why = f"{old} classes there, {new} here" if old != new else "the classes have other names"
    warnings.warn(
        f"the predictor (class logits and box deltas) of {checkpoint.path} is left fresh: {why}", stacklevel=4
    )
    predictor = {key for key in variables if key.startswith(PREDICTOR)}
    for key in predictor & tensors.keys():
        del tensors[key]
    return predictor


def _take_classes(tensors: dict[str, Tensor], rows: list[int], background: int) -> None:
    for part in ("kernel", "bias"):
        logits, deltas = tensors[f"head_logits/{part}"], tensors[f"head_deltas/{part}"]
        quads = deltas.value.reshape(*deltas.value.shape[:-1], -1, 4)[..., rows, :]
        tensors[f"head_logits/{part}"] = logits._replace(value=logits.value[..., [*rows, background]])
        tensors[f"head_deltas/{part}"] = deltas._replace(value=quads.reshape(*deltas.value.shape[:-1], -1))


def model_config(checkpoint: Checkpoint, **changes: Any) -> ModelConfig:
    """Returns the `ModelConfig` of a detector that computes what the checkpoint's own did.

    Args:
        checkpoint: from `read_checkpoint`; of a backbone, the rest is the default.
        changes: fields that shall differ.
    """
    return ModelConfig(**{**checkpoint.model, **changes})


def load_detector(source: PathLike, padded: bool = False) -> keras.Model:
    """Loads a trained detector: a work directory's, or weights that others trained.

    Args:
        source: a work directory of `kfpn train` or `kfpn import-weights`, or a detector's checkpoint, see `read_checkpoint`.
        padded: give the model the second input `image_sizes`, see `build_detector`.

    Returns:
        The inference model under the current Keras dtype policy, with the attributes `class_names` and `category_ids`,
        tuples over labels. Of a work directory: with the best weights seen in evaluation.

    Raises:
        ValueError: if there is no such thing, or it can't be used, see `read_checkpoint`.
    """
    if os.path.isdir(source) or not (os.path.exists(source) or ":" in os.fspath(source)):
        return trained.load_detector(source, padded)
    checkpoint = read_checkpoint(source)
    if not checkpoint.is_detector:
        raise ValueError(
            f"{checkpoint.path}: must be a detector, got {checkpoint.kind}: train one with kfpn train --init"
        )
    config = model_config(checkpoint)
    submodels = build_submodels(config)
    apply(checkpoint, submodels, {})
    _say_notes(checkpoint)
    model = inference_model(submodels, config, padded)
    model.class_names, model.category_ids = checkpoint.names_of_classes()
    return model
