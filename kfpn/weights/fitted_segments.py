"""Fits trained weights to a network that proposes segments: its backbone, its pyramid, and the heads of its windows."""

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kfpn.weights.built_detector import mismatched_settings
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights

BACKBONE_SETTINGS = ("backbone", "norm", "stride_on", "pixel_mean", "pixel_std")
"""Fields of `ModelConfig` without which the weights of a backbone are useless."""
PYRAMID_SETTINGS = ("pyramid", "upsampling", "merge")
"""Those without which the weights of a pyramid are."""
SETTINGS_TO_MENTION = ("norm_epsilon", "padding")
"""Those that may be changed on purpose; the others that may are of parts that segments do not have."""

PYRAMID = re.compile(r"(lateral|output)_\d")
"""The variables of a pyramid."""
WINDOW_HEAD = re.compile(r"segment_(mask_|score_)?(\dx\d)_")
"""The variables of the heads of windows, and the kind of window."""


def is_segmenter(variables: Collection[str]) -> bool:
    """Tells whether variables, or tensors under their names, are those of a network that proposes segments."""
    return any(WINDOW_HEAD.match(key) for key in variables)


def fit_segments(
    trained: TrainedWeights,
    variables: Mapping[str, Any],
    tensors: dict[str, Tensor],
    settings: Mapping[str, Any],
) -> set[str]:
    """Fits `tensors` of a detector or of segments in place to a network that proposes segments, and says what stays fresh.

    Args:
        trained: what they belong to.
        variables: of the model, `layer/variable` -> variable.
        tensors: `layer/variable` -> tensor; what the model has no use for is taken out.
        settings: the fields of `ModelConfig` that the model was built with.

    Returns:
        The keys of the variables that stay as they are.
    """
    fresh = _fit_pyramid(trained, variables, tensors, settings)
    if is_segmenter(tensors):
        return fresh | _fit_windows(trained, variables, tensors)
    for key in [key for key in tensors if key.startswith(("rpn_", "head_", "mask_"))]:
        del tensors[key]
    warnings.warn(
        f"the heads of windows are left fresh: {trained.path} is a detector, whose own heads are left out", stacklevel=5
    )
    return fresh | {key for key in variables if WINDOW_HEAD.match(key)}


def _fit_pyramid(
    trained: TrainedWeights,
    variables: Mapping[str, Any],
    tensors: dict[str, Tensor],
    settings: Mapping[str, Any],
) -> set[str]:
    """Leaves the pyramid fresh where that of the weights is another one."""
    own = {key: tuple(variables[key].shape) for key in variables if PYRAMID.match(key)}
    theirs = {key: tensors[key].value.shape for key in tensors if PYRAMID.match(key)}
    other = mismatched_settings(PYRAMID_SETTINGS, settings, trained.model)
    if not other and own == theirs:
        return set()
    for key in theirs:
        del tensors[key]
    if own:
        why = ", ".join(other) or _sizes_of_pyramids(trained, settings, own) or "other layers"
        warnings.warn(f"the pyramid is left fresh: {trained.path} was trained with {why}", stacklevel=6)
    return {*own}


def _sizes_of_pyramids(trained: TrainedWeights, settings: Mapping[str, Any], own: Mapping[str, Sequence[int]]) -> str:
    """Says which settings make the shapes of two pyramids differ; those of a built model are read off its shapes, `own`."""
    shown = {
        "pyramid_channels": max(shape[-1] for shape in own.values()),
        "norm_heads": any("_norm/" in key for key in own),
    }
    names = ("pyramid_channels", "norm_heads", "smooth_p5")
    return ", ".join(mismatched_settings(names, {**settings, **shown}, trained.model))


def _fit_windows(trained: TrainedWeights, variables: Mapping[str, Any], tensors: dict[str, Tensor]) -> set[str]:
    """Takes the heads of the windows that both have, but for masks of another resolution."""
    own, theirs = _keys_by_kind(variables), _keys_by_kind(tensors)
    lacking, unused = own.keys() - theirs.keys(), theirs.keys() - own.keys()
    if lacking:
        text = " and ".join(sorted(lacking))
        warnings.warn(f"the heads of windows {text} are left fresh: {trained.path} has none", stacklevel=6)
    if unused:
        text = " and ".join(sorted(unused))
        warnings.warn(f"the heads of windows {text} of {trained.path} are left out: the model has none", stacklevel=6)
    for key in [key for kind in unused for key in theirs[kind]]:
        del tensors[key]
    fresh = {key for kind in lacking for key in own[kind]}
    masks = {key for key in variables.keys() & tensors.keys() if key.startswith("segment_mask_")}
    if any(tuple(variables[key].shape)[-1] != tensors[key].value.shape[-1] for key in masks):
        side = trained.model["segment_side"]
        warnings.warn(
            f"the masks are left fresh: those of {trained.path} have {side} x {side} cells, the model's have others",
            stacklevel=6,
        )
        for key in masks:
            del tensors[key]
        fresh |= masks
    return fresh


def _keys_by_kind(keys: Collection[str]) -> dict[str, set[str]]:
    """Returns the kinds of windows that variables belong to, "5x5" or "7x7", each with its variables' keys."""
    by_kind: dict[str, set[str]] = {}
    for key in keys:
        if match := WINDOW_HEAD.match(key):
            by_kind.setdefault(match[2], set()).add(key)
    return by_kind
