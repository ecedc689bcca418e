"""Detects objects in a user's images, and gives them as arrays."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import keras
import numpy as np

from kfpn.config.checks import require_local
from kfpn.config.run import InputConfig
from kfpn.config.tile_options import Tiles, tiles_in_force
from kfpn.data.augment import size_rule
from kfpn.data.image import decode_picture
from kfpn.data.jpeg_fraction import AnyImage
from kfpn.evaluation.detect import detect_image, detect_unpadded
from kfpn.evaluation.detection_rows import ROWS, take_rows
from kfpn.evaluation.source_pass import detect_function
from kfpn.inference.model_tiles import detect_with_model
from kfpn.weights.assign import load_detector

ImageLike = str | os.PathLike | np.ndarray
LeastScore = float | Sequence[float]
"""The least score of a detection: one for all, or one for each label."""


def predict(
    detector: keras.Model | str | os.PathLike,
    images: ImageLike | Sequence[ImageLike],
    *,
    min_score: float | Literal["best"] = 0.0,
    tiles: Tiles | int | None = None,
) -> list[dict[str, Any]]:
    """Returns the detections of images of any size.

    Args:
        detector: a model of `kfpn.load_detector`, with `padded` or without, or a work directory. Pass the model if you call
            this more than once: it is loaded and compiled once.
        images: paths of image files or (H, W, 3) uint8 RGB arrays: one, or a sequence of them. They are resized as the
            detector's training resized them.
        min_score: detections below it are left out, 0..1. "best": each class has the threshold that `kfpn evaluate
            --best-thresholds` found, the detector's attribute `thresholds`.
        tiles: look at each image in tiles of so many of its pixels, and as a whole; or a `kfpn.Tiles`. 0: as a whole only. None: in
            the tiles that the detector was trained on, if it was.

    Returns:
        list: one dict an image, also where a single image was given: `boxes` (n, 4) float32 yxyx in pixels of the original
        image, `scores` (n,) float32 from high to low, `labels` (n,) int32 in 0..K-1, `names` list of n str; of a detector with
        masks also `masks` (n, M, M) float32 in 0..1, each within its box: `kfpn.paste_masks` puts them into the image, by the rule
        that is the detector's attribute `pasting`.

    Raises:
        ValueError: if an image can't be read or is another array, the detector is another model or can't be loaded, or
            min_score or tiles is out of range.
    """
    if min_score != "best" and not (isinstance(min_score, int | float) and 0.0 <= min_score <= 1.0):
        raise ValueError(f"min_score must lie in 0..1 or be 'best', got {min_score!r}")
    one = isinstance(images, str | os.PathLike | np.ndarray) or not isinstance(images, Iterable)
    several: list[Any] = [images] if one else list(cast(Iterable, images))
    for image in several:
        _require_image(image)
    model = load_detector(detector, padded=True) if isinstance(detector, str | os.PathLike) else detector
    if not (hasattr(model, "class_names") and hasattr(model, "input_config")):
        raise ValueError(
            "detector must be a model of kfpn.load_detector, which has `class_names` and `input_config`, or a work "
            f"directory, got {model!r}"
        )
    least = min_score if min_score != "best" else _best_of(model)
    tiled = tiles_in_force(tiles, model.input_config)
    return [_named(_detect_one(model, image, tiled), model.class_names, least) for image in several]


def _best_of(model: keras.Model) -> Sequence[float]:
    if not hasattr(model, "thresholds"):
        raise ValueError(
            "min_score must be a number for a detector without best thresholds, got 'best': kfpn evaluate --workdir WORKDIR "
            "--best-thresholds makes them; then load the detector anew"
        )
    return model.thresholds


def _require_image(image: Any) -> None:
    """Raises ValueError for what can't be an image, before the first one is looked at."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"images must be paths or (H, W, 3) uint8 arrays, got {image.dtype} of shape {image.shape}"
            )
    elif not isinstance(image, str | os.PathLike):
        raise ValueError(f"images must be paths or (H, W, 3) uint8 arrays, got {type(image).__name__}")
    require_local("images", image)
    if not isinstance(image, np.ndarray) and not os.path.exists(image):
        raise ValueError(f"images must exist, got {os.fspath(image)!r}, which does not")


def _decoded_for(image: ImageLike, rule: InputConfig | None) -> AnyImage:
    """Returns an image decoded for a resize rule, or whole."""
    if isinstance(image, np.ndarray):
        return image
    return decode_picture(image, os.fspath(image), size_rule(rule) if rule else None)


def _detect_one(model: keras.Model, picture: ImageLike, tiles: Tiles | None) -> dict[str, Any]:
    if tiles is not None:
        return detect_with_model(model, _decoded_for(picture, None), tiles)
    image = _decoded_for(picture, model.input_config)
    # The compiled function is kept with the model, so that the next call compiles only images of new sizes.
    if not hasattr(model, "compiled_detector"):
        model.compiled_detector = detect_function(model)
    padded = isinstance(model.input, dict)
    return (detect_image if padded else detect_unpadded)(model.compiled_detector, image, model.input_config)


def _named(detections: dict[str, Any], class_names: Sequence[str], min_score: LeastScore) -> dict[str, Any]:
    best = above_score(detections, min_score)
    return {
        **{name: best[name] for name in ROWS if name in best},
        "names": [class_names[label] for label in best["labels"]],
    }


def above_score(detections: dict[str, Any], min_score: LeastScore) -> dict[str, Any]:
    """Returns the detections of an image that have at least a score: one for all, or one for each label."""
    least = min_score if isinstance(min_score, int | float) else np.asarray(min_score)[detections["labels"]]
    return take_rows(detections, detections["scores"] >= least)
