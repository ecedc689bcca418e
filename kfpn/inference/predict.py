"""Detects objects in a user's images, and gives them as arrays."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, cast

import keras
import numpy as np

from kfpn.config.checks import require_local
from kfpn.config.run import InputConfig
from kfpn.config.tile_options import Tiles, tiles_in_force
from kfpn.data.augment import size_rule
from kfpn.data.image import decode_picture
from kfpn.data.jpeg_fraction import AnyImage, as_decoded
from kfpn.evaluation.detect import detect_image, detect_unpadded
from kfpn.evaluation.source_pass import detect_function
from kfpn.inference.detections import Detections, Labelling, LeastScore
from kfpn.inference.model_tiles import detect_with_model
from kfpn.weights.assign import load_detector

ImageLike = str | os.PathLike | bytes | np.ndarray

DEFAULT_MIN_SCORE = 0.5
"""The least score of a detection, where nothing else is asked for or known."""


def predict(
    detector: keras.Model | str | os.PathLike,
    images: ImageLike | Iterable[ImageLike],
    *,
    min_score: float | Literal["best"] | None = None,
    tiles: Tiles | int | None = None,
    masks: bool = False,
) -> list[Detections]:
    """Returns the detections of images of any size.

    Args:
        detector: a model of `kfpn.load_detector`, with `padded` or without, or a work directory. Pass the model if you call
            this more than once: it is loaded and compiled once.
        images: paths of image files, the bytes of such files, or (H, W, 3) uint8 RGB arrays: one, or several of them. They are
            resized as the detector's training resized them. Of an iterator, such as the frames of a video, one image at a time is in memory.
        min_score: detections below it are left out, 0..1. None: each class has the threshold that `kfpn evaluate
            --best-thresholds` found, the detector's attribute `thresholds`; without them 0.5 counts for all. "best": such thresholds must
            be there.
        tiles: look at each image in tiles of so many of its pixels, and as a whole; or a `kfpn.Tiles`. 0: as a whole only. None: in
            the tiles that the detector was trained on, if it was.
        masks: give `masks` of the image's size, of a detector that has masks. False: `box_masks` alone, which take little memory;
            `draw`, `to_coco` and `to_supervision` have masks either way.

    Returns:
        list: one `kfpn.Detections` for each image, also where a single image was given.

    Raises:
        ValueError: if an image can't be read or is another array, the detector is another model or can't be loaded, or
            min_score or tiles is out of range.
    """
    if isinstance(min_score, np.floating):  # of an array of scores
        min_score = float(min_score)
    if min_score not in (None, "best") and not (isinstance(min_score, int | float) and 0.0 <= min_score <= 1.0):
        raise ValueError(f"min_score must lie in 0..1 or be 'best' or None, got {min_score!r}")
    several = several_images(images)
    model = load_detector(detector, padded=True) if isinstance(detector, str | os.PathLike) else detector
    _require_detector(model)
    tiled = tiles_in_force(tiles, model.input_config)
    labelling = Labelling(
        model.class_names, _asked_least(model, min_score), getattr(model, "category_ids", None),
        getattr(model, "pasting", "sampled"),
    )  # fmt: skip
    return [_detect_one(model, image, tiled, labelling, masks) for image in several]


def several_images(images: ImageLike | Iterable[ImageLike]) -> Iterable[Any]:
    """Returns images as `predict` takes them, also where there is a single one; all of them are checked, but for those of an iterator.

    Raises:
        ValueError: for what can't be an image.
    """
    one = isinstance(images, str | os.PathLike | bytes | np.ndarray) or not isinstance(images, Iterable)
    several: Iterable[Any] = [images] if one else cast(Iterable, images)
    if not isinstance(several, Iterator):  # all of them, before the first one is looked at
        several = list(several)
        for image in several:
            require_image(image)
    return several


def _require_detector(model: Any) -> None:
    """Raises ValueError for a model that is no loaded detector."""
    if getattr(getattr(model, "model_config", None), "task", None) == "segments":
        raise ValueError(
            f"detector must be a model of kfpn.load_detector, got {model!r}, which proposes segments: kfpn.propose_segments takes it"
        )
    if not (hasattr(model, "class_names") and hasattr(model, "input_config")):
        raise ValueError(
            "detector must be a model of kfpn.load_detector, which has `class_names` and `input_config`, or a work "
            f"directory, got {model!r}{': give its attribute `detector`' if hasattr(model, 'detector') else ''}"
        )


def _asked_least(model: keras.Model, asked: float | str | None) -> LeastScore:
    """Returns the least score: the one that was asked for, that of each class, or the default."""
    if isinstance(asked, int | float):
        return asked
    if asked is None:
        return getattr(model, "thresholds", DEFAULT_MIN_SCORE)
    if not hasattr(model, "thresholds"):
        raise ValueError(
            "min_score must be a number for a detector without best thresholds, got 'best': kfpn evaluate --workdir WORKDIR "
            "--best-thresholds makes them; then load the detector anew"
        )
    return model.thresholds


def require_image(image: Any) -> None:
    """Raises ValueError for what can't be an image, before the first one is looked at."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"images must be paths, bytes or (H, W, 3) uint8 arrays, got {image.dtype} of shape {image.shape}"
            )
    elif not isinstance(image, str | os.PathLike | bytes):
        raise ValueError(f"images must be paths, bytes or (H, W, 3) uint8 arrays, got {type(image).__name__}")
    elif not isinstance(image, bytes):
        require_local("images", image)
        if not os.path.exists(image):
            raise ValueError(f"images must exist, got {os.fspath(image)!r}, which does not")


def decoded_for(image: ImageLike, rule: InputConfig | None) -> AnyImage:
    """Returns an image decoded for a resize rule, or whole."""
    if isinstance(image, np.ndarray):
        return image
    name = "images: the bytes of an image" if isinstance(image, bytes) else os.fspath(image)
    return decode_picture(image, name, size_rule(rule) if rule else None)


def _detect_one(
    model: keras.Model, picture: ImageLike, tiles: Tiles | None, labelling: Labelling, masks: bool
) -> Detections:
    require_image(picture)
    image = decoded_for(picture, None if tiles else model.input_config)
    outputs = detect_with_model(model, image, tiles) if tiles else _detect_whole(model, image)
    return labelling.detections(outputs, as_decoded(image).size, masks)


def _detect_whole(model: keras.Model, image: AnyImage) -> dict[str, Any]:
    padded = isinstance(model.input, dict)
    return (detect_image if padded else detect_unpadded)(kept_function(model), image, model.input_config)


def kept_function(model: Any) -> Callable:
    """Returns the compiled function of a model, which is kept with it: the next call compiles only images of new sizes."""
    if not hasattr(model, "compiled_detector"):
        model.compiled_detector = detect_function(model)
    return model.compiled_detector
