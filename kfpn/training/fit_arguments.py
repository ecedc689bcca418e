"""Looks at what `fit` and `evaluate` of a trainable detector are given, so that what is wrong is said before the training."""

import inspect
import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from kfpn.data.record import Source
from kfpn.training.given_batches import checked_batches
from kfpn.training.trained_network import take_labels

LEFT_OUT = ("y", "sample_weight", "class_weight")
"""Arguments of Keras for models with targets of their own."""
WATCHED = ("val_AP", "val_AR", "val_mask_AP", "val_mask_AR")
"""How the names in the logs begin that only `kfpn.callbacks.CocoAP` writes."""


def named_arguments(method: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Returns the arguments of a call of `keras.Model` by name, without the model.

    Args:
        method: its name.
        arguments: the model first.
        options: those that were named.
    """
    given = dict(inspect.signature(getattr(keras.Model, method)).bind(*arguments, **options).arguments)
    others = given.pop("kwargs", {})
    del given["self"]
    return given | others


def require_no_targets(given: Mapping[str, Any]) -> None:
    """Refuses what Keras would take and the losses would never see: targets beside the batch, weights of samples or classes.

    Raises:
        ValueError: naming the first that is given.
    """
    for name in LEFT_OUT:
        if given.get(name) is not None:
            raise ValueError(
                f"{name} must be left out, got {_in_words(given[name])}: boxes and labels stand in the batch, and its losses weigh each image "
                "alike"
            )


def _require_one_share(train: Any, val: Any) -> None:
    """Checks that data which are split by image are split alike for both parts: else images are trained on and evaluated on.

    Args:
        train, val: what `fit` is given, batches of `kfpn.dataset` or others.

    Raises:
        ValueError: if the shares differ.
    """
    one, other = getattr(train, "config", None), getattr(val, "config", None)
    if one is None or other is None or one.data != other.data or one.val_share == other.val_share:
        return
    raise ValueError(
        f"val_share must be the same for both parts of {one.data}, got {one.val_share} to train on and {other.val_share} to evaluate "
        "on: else images would be in both"
    )


def require_order(callbacks: Any) -> None:
    """Checks that no callback that watches a figure of COCO stands before the one that measures it: it would never see the figure.

    Args:
        callbacks: as `fit` takes them.

    Raises:
        ValueError: naming both.
    """
    given = callbacks if isinstance(callbacks, Iterable) else getattr(callbacks, "callbacks", None) or [callbacks]
    before: list[Any] = []
    for callback in given:
        if getattr(callback, "measures_figures", False) and before:
            raise ValueError(
                f"{type(before[0]).__name__} must stand behind {type(callback).__name__} in the list of callbacks, got it before: it watches "
                f"{before[0].monitor}, which it would never see"
            )
        if str(getattr(callback, "monitor", "")).startswith(WATCHED):
            before.append(callback)


def taken_data(detector: keras.Model, given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Checks arguments that hold data, and returns them as Keras takes them, with each batch checked when it is made.

    Args:
        detector: whose labels the data must have.
        given: all arguments by name.
        names: of those that hold data.

    Raises:
        ValueError: if there are targets or weights beside the data, the classes are others, the parts were split by other shares, or the data
            are no batches.
    """
    require_no_targets(given)
    _require_one_share(given.get("x"), given.get("validation_data"))
    return {
        name: _taken_batches(detector, given[name], name)
        for name in names
        if name == "x" or given.get(name) is not None
    }


def _taken_batches(detector: keras.Model, data: Any, name: str) -> Any:
    if name == "validation_data" and isinstance(data, tuple | list) and data:
        require_no_targets(dict(zip(LEFT_OUT, data[1:], strict=False)))
        data = data[0]
    if data is None or isinstance(data, str | os.PathLike | Source):
        raise ValueError(
            f"{name} must be batches, got {_in_words(data)}: kfpn.dataset(SOURCE, model, batch_size) makes them"
        )
    take_labels(detector, getattr(data, "class_names", None))
    return checked_batches(data, len(detector.class_names))


def _in_words(value: Any) -> str:
    return repr(value) if value is None or isinstance(value, str | os.PathLike) else f"a {type(value).__name__}"
