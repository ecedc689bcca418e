"""Calls a person's own augmentation, a function named by `--augment`, and checks what it returns."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from kfpn.config.input_config import require_function_name
from kfpn.data.own_masks import bitmaps_of, masks_of_bitmaps
from kfpn.data.picture_changes import Picture

ARGUMENTS = "image, boxes, labels, masks, generator"
CROWD = -1
"""The label by which the function knows crowd regions, which are neither right nor wrong."""
_XYXY = [1, 0, 3, 2]
"""Takes boxes from yxyx to the function's order and back."""
_ROUNDING = 0.01
"""Pixels by which a box may pass the image's border: the rounding of float32 in a few thousand pixels, with room."""


class OwnAugment:
    """Changes pictures by a person's own function.

    Args:
        name: module:function, for messages.
        function: of the five arguments `ARGUMENTS`.
        classes: int, how many classes there are.
        most_boxes: int, how many boxes a picture may have.
    """

    def __init__(self, name: str, function: Callable[..., Any], classes: int, most_boxes: int) -> None:
        self.name = name
        self.function = function
        self.classes = classes
        self.most_boxes = most_boxes

    def __call__(self, picture: Picture, chance: np.random.Generator, image: str) -> Picture:
        """Returns the changed picture.

        Args:
            picture: as it is after all other augmentations. The function gets copies, which it may change; masks as bitmaps, see
                `bitmaps_of`.
            chance: generator of this sample.
            image: name of the image, for messages.

        Raises:
            ValueError: naming the function, the image and what to do, if the function fails or returns what can't be used.
        """
        labels = np.where(picture.crowd, CROWD, picture.labels).astype(np.int32)
        masks = None if picture.masks is None else bitmaps_of(picture.masks)
        try:
            answer = self.function(picture.image.copy(), picture.boxes[:, _XYXY], labels, masks, chance)
        except Exception as error:
            raise ValueError(
                f"{self.name} must not fail, got {_told(error)} for {image} ({picture.image.shape[0]} x "
                f"{picture.image.shape[1]} pixels, {len(labels)} boxes): mend {_place(error)}"
            ) from error
        try:
            return self._checked(answer, masks)
        except ValueError as error:
            raise ValueError(f"{self.name} must {error} (image {image})") from error

    def _checked(self, answer: Any, given: np.ndarray | None) -> Picture:
        """Returns what the function answered as a picture.

        Args:
            answer: of the function.
            given: the masks that it got.

        Raises:
            ValueError: "RULE, got VALUE: what to do".
        """
        if not isinstance(answer, tuple | list) or len(answer) != 4:
            got = f"{len(answer)} values" if isinstance(answer, tuple | list) else type(answer).__name__
            raise ValueError(
                f"return image, boxes, labels and masks, got {got}: end it with `return image, boxes, labels, masks`"
            )
        image, boxes, labels, masks = answer
        if masks is not None and given is None:
            raise ValueError(
                f"return None as masks, got {_kind(masks)}: masks come only with --mask, from data that has them"
            )
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"return an image (H, W, 3) of uint8, got {_kind(image)}: values are 0..255, convert them with "
                "`numpy.clip(image, 0, 255).astype(numpy.uint8)`"
            )
        if not image.size:
            raise ValueError(f"return an image with pixels, got {_kind(image)}: return the image that came instead")
        boxes, labels = _boxes(boxes), _labels(labels, self.classes)
        if len(boxes) != len(labels):
            raise ValueError(
                f"return a label for each box, got {len(boxes)} boxes and {len(labels)} labels: drop both together"
            )
        if len(boxes) > self.most_boxes:
            raise ValueError(
                f"return at most {self.most_boxes} boxes (twice the most of one image in the data), got {len(boxes)}: leave some out"
            )
        crowd = labels == CROWD
        boxes = _inside_image(boxes, image)[:, _XYXY]
        kept = masks_of_bitmaps(masks, boxes, image.shape[:2]) if given is not None else None
        return Picture(image, boxes, np.where(crowd, 0, labels).astype(np.int32), crowd, kept)


def _boxes(values: Any) -> np.ndarray:
    try:
        boxes = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"return boxes (N, 4) of numbers, got {_kind(values)}: a row is x1, y1, x2, y2") from None
    if not boxes.size and boxes.ndim <= 2:
        return np.zeros((0, 4), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"return boxes (N, 4), got {_kind(values)}: a row is x1, y1, x2, y2, and no box is numpy.zeros((0, 4))"
        )
    return boxes


def _labels(values: Any, classes: int) -> np.ndarray:
    try:
        labels = np.asarray(values)
    except ValueError:
        raise ValueError(f"return labels (N,) of integers, got {_kind(values)}: one for each box") from None
    if not labels.size and labels.ndim == 1:
        return np.zeros(0, np.int32)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"return labels (N,) of integers, got {_kind(values)}: one for each box, as they came")
    if labels.min() < CROWD or labels.max() >= classes:
        wrong = int(labels[(labels < CROWD) | (labels >= classes)][0])
        raise ValueError(
            f"return labels in 0..{classes - 1}, or {CROWD} of crowd, got {wrong}: labels are counted from 0"
        )
    return labels.astype(np.int32)


def _inside_image(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns boxes (N, 4) x1, y1, x2, y2 without what rounding adds at the border."""
    height, width = image.shape[:2]
    limit = np.array([width, height, width, height], np.float32)
    finite = np.isfinite(boxes).all(-1)
    if not finite.all():
        raise ValueError(f"return finite boxes, got {_values_of_box(boxes, ~finite)}: look for a division by 0 in it")
    outside = np.any((boxes < -_ROUNDING) | (boxes > limit + _ROUNDING), axis=-1)
    if outside.any():
        raise ValueError(
            f"return boxes inside the image, got {_values_of_box(boxes, outside)} in {width} x {height} pixels: cut them with numpy.clip, and "
            "drop those without area; a row is x1, y1, x2, y2"
        )
    cut = np.clip(boxes, 0.0, limit)
    flat = (cut[:, 2:] <= cut[:, :2]).any(-1)
    if flat.any():
        raise ValueError(
            f"return boxes with x1 < x2 and y1 < y2, got {_values_of_box(boxes, flat)}: drop boxes without area, with their labels"
        )
    return cut


def _values_of_box(boxes: np.ndarray, wrong: np.ndarray) -> str:
    names = ("x1", "y1", "x2", "y2")
    return ", ".join(f"{name} {float(value):g}" for name, value in zip(names, boxes[wrong][0], strict=True))


def _kind(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def load_function(name: str) -> Callable[..., Any]:
    """Returns the function that `--augment` names.

    Args:
        name: module:function. The module is looked for in the current folder, then among those that are installed.

    Raises:
        ValueError: if the module can't be imported, has no such function, or the function does not take the five arguments.
    """
    require_function_name(name)
    module_name, _, attribute = name.partition(":")
    try:
        with _current_folder_first():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ValueError(
                f"augment must name a module that is there, got {name!r}: there is no {error.name} in {os.getcwd()}, and none is "
                "installed; run the command in the folder of the file, or install its package"
            ) from error
        raise ValueError(
            f"augment must name a module that imports, got {name!r}: {_told(error)} in {_place(error)}"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"augment must name a module that imports, got {name!r}: {_told(error)} in {_place(error)}"
        ) from error
    return _function_of(module, attribute, name)


def _function_of(module: ModuleType, attribute: str, name: str) -> Callable[..., Any]:
    function = getattr(module, attribute, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        hint = f"its functions are {', '.join(own)}" if own else "it has none"
        place = getattr(module, "__file__", None) or "a built-in module"
        raise ValueError(f"augment must name a function of {module.__name__} ({place}), got {name!r}: {hint}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions that are written in C do not tell theirs
        return function
    try:
        signature.bind(*ARGUMENTS.split(", "))
    except TypeError:
        raise ValueError(
            f"{name} must take ({ARGUMENTS}), got {signature}: write it with these five arguments"
        ) from None
    return function


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Looks for modules in the current folder first, and afterwards last: what the function imports later is found there too."""
    folder = os.getcwd()
    known = folder in sys.path
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        if not known:
            sys.path.append(folder)


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"


def _place(error: BaseException) -> str:
    """Returns the file and the line where a person's own code failed: the innermost one outside of installed packages."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else "it"
