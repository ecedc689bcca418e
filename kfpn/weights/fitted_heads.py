"""Fits the heads of trained weights to those of a model: other classes, and heads that only one of the two has."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from kfpn.config.model import network_name
from kfpn.weights.makers.detector_layout import STAGE_ENDINGS
from kfpn.weights.makers.trained_weights import Tensor, TrainedWeights

LATER_STAGE = re.compile(rf"head_\w+({'|'.join(STAGE_ENDINGS[1:])})(_norm)?/")
"""The variables of the box heads behind the first one of a cascade."""
LOGITS = re.compile(rf"head_logits({'|'.join(STAGE_ENDINGS)})/")
"""The variables that give the scores of classes, in every stage."""
DELTAS = ("head_deltas/kernel", "head_deltas/bias")
"""Those that give the boxes: of each class, but with a cascade one for all classes in every stage."""
MASK_PREDICTOR = ("mask_logits/kernel", "mask_logits/bias")
"""Those of the mask head, where it has a mask for each class; one mask for all classes fits any classes."""


def fit_heads(
    trained: TrainedWeights,
    variables: Mapping[str, Any],
    tensors: dict[str, Tensor],
    class_names: Sequence[str] | None,
) -> set[str]:
    """Fits `tensors` of a detector in place to the heads and the classes of a model, and says in a line what stays fresh.

    Args:
        trained: what they belong to.
        variables: of the model, `layer/variable` -> variable.
        tensors: `layer/variable` -> tensor; what the model has no use for is taken out.
        class_names: the names of the model's labels; None: not known.

    Returns:
        The keys of the variables that stay as they are.
    """
    fresh = _fit_cascade(trained, variables, tensors) | _fit_mask_head(trained, variables, tensors)
    old, new = trained.model["num_classes"], int(variables["head_logits/bias"].shape[0]) - 1
    names, known = tuple(class_names or ()), trained.class_names or ()
    if names and known and names != known and all(known.count(name) == 1 for name in names):
        _take_classes(tensors, [known.index(name) for name in names], old)
        return fresh
    if old == new and (not names or not known or names == known):
        return fresh
    why = f"{old} classes there, {new} here" if old != new else "the classes have other names"
    of_classes = _keys_of_classes(trained, variables)
    taken = of_classes & tensors.keys()
    parts = ["class logits", *(["box deltas"] if taken & {*DELTAS} else [])]
    text = " and ".join(parts) + (", masks" if taken & {*MASK_PREDICTOR} else "")
    warnings.warn(f"the predictor ({text}) of {trained.path} is left fresh: {why}", stacklevel=5)
    for key in of_classes:
        tensors.pop(key, None)
    return fresh | (variables.keys() & of_classes)


def _keys_of_classes(trained: TrainedWeights, variables: Mapping[str, Any]) -> set[str]:
    """Returns the keys of the variables that have a part for each class."""
    keys = {key for key in variables if LOGITS.match(key)}
    keys |= set() if has_later_stages(variables) else {*DELTAS}
    return keys | (set() if trained.model.get("mask_classes") == "agnostic" else {*MASK_PREDICTOR})


def has_later_stages(keys: Mapping[str, Any]) -> bool:
    """Tells whether variables, or tensors under their names, are those of a cascade."""
    return any(LATER_STAGE.match(key) for key in keys)


def _fit_cascade(trained: TrainedWeights, variables: Mapping[str, Any], tensors: dict[str, Tensor]) -> set[str]:
    """Takes the first stage where only the weights or only the model are a cascade; its box deltas have another form."""
    own, theirs = has_later_stages(variables), has_later_stages(tensors)
    if own == theirs:
        return set()
    theirs_is = network_name("mask_logits/bias" in tensors, theirs)
    for key in [key for key in tensors if LATER_STAGE.match(key) or key in DELTAS]:
        del tensors[key]
    if own:
        warnings.warn(
            f"the box deltas and stages 2 and 3 of the cascade are left fresh: {trained.path} is a {theirs_is}, with one box head",
            stacklevel=6,
        )
        return {key for key in variables if LATER_STAGE.match(key) or key in DELTAS}
    warnings.warn(
        f"the box deltas are left fresh, and stages 2 and 3 of {trained.path}, a {theirs_is}, are left out: the model has one box "
        "head (--model.cascade, cascade=True)",
        stacklevel=6,
    )
    return {*DELTAS}


def _fit_mask_head(trained: TrainedWeights, variables: Mapping[str, Any], tensors: dict[str, Tensor]) -> set[str]:
    """Drops a mask head that the model lacks, and returns the keys of one that the weights lack."""
    own, theirs = ({key for key in keys if key.startswith("mask_")} for keys in (variables, tensors))
    if theirs and not own:
        warnings.warn(
            f"the mask head of {trained.path} is left out: the model has none (--mask, mask=True)", stacklevel=6
        )
        for key in theirs:
            del tensors[key]
    if own and not theirs:
        warnings.warn(f"the mask head is left fresh: {trained.path} has none", stacklevel=6)
        return own
    return set()


def _take_classes(tensors: dict[str, Tensor], labels: list[int], background: int) -> None:
    """Replaces the predictor's tensors by the parts of the given labels, in this order, and of the background."""
    for key in [key for key in tensors if LOGITS.match(key)]:
        tensors[key] = tensors[key]._replace(value=tensors[key].value[..., [*labels, background]])
    for key in () if has_later_stages(tensors) else DELTAS:
        if key in tensors:
            value = tensors[key].value
            by_class = value.reshape(*value.shape[:-1], -1, 4)[..., labels, :]
            tensors[key] = tensors[key]._replace(value=by_class.reshape(*value.shape[:-1], -1))
    for key in MASK_PREDICTOR:
        masks = tensors.get(key)
        if masks is not None and masks.value.shape[-1] == background:  # a mask for each class
            tensors[key] = masks._replace(value=masks.value[..., labels])
