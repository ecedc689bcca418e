"""Detects objects in a user's images: as arrays in Python, or as annotated pictures and one file of detections."""

import glob
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import keras
import numpy as np
from PIL import Image
from tqdm import tqdm

from kfpn.config.checks import require_local
from kfpn.config.run import Config, InputConfig
from kfpn.config.tile_options import Tiles, tiles_in_force
from kfpn.data.augment import size_rule
from kfpn.data.image import decode_picture, load_picture
from kfpn.data.image_endings import image_endings, images_among, is_image_name
from kfpn.data.jpeg_fraction import AnyImage, DecodedImage
from kfpn.evaluation.coco_rows import detections_to_coco
from kfpn.evaluation.detect import detect_image, detect_unpadded
from kfpn.evaluation.detection_limit import limit_line
from kfpn.evaluation.source_pass import detect_function
from kfpn.inference.image_pyramid import ImagePyramid
from kfpn.inference.model_tiles import detect_with_model
from kfpn.plotting.draw_boxes import draw_detections
from kfpn.weights.assign import load_detector

LOGGER = logging.getLogger("kfpn")

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
        image, `scores` (n,) float32 from high to low, `labels` (n,) int32 in 0..K-1, `names` list of n str.

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
    best = _above(detections, min_score)
    return {
        **{name: best[name] for name in ("boxes", "scores", "labels")},
        "names": [class_names[label] for label in best["labels"]],
    }


def _above(detections: dict[str, Any], min_score: LeastScore) -> dict[str, Any]:
    least = min_score if isinstance(min_score, int | float) else np.asarray(min_score)[detections["labels"]]
    keep = detections["scores"] >= least
    return detections | {name: detections[name][keep] for name in ("boxes", "scores", "labels")}


def predict_images(
    model: keras.Model,
    config: Config,
    paths: Sequence[Path],
    output: Path,
    min_score: LeastScore,
    pyramid: ImagePyramid | None = None,
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Writes an annotated PNG of each image, and `detections.json`.

    An image that can't be read is named on stderr, and the others go on.

    Args:
        model: from `load_detector(workdir, padded=True)`.
        config: of the run; its `input` says how images are resized.
        paths: image files.
        output: folder, made if it is not there.
        min_score: detections below it are left out: one score, or one for each label.
        pyramid: of the model, to look at each image in several sizes or in tiles; None: at the run's own size.

    Returns:
        The content of `detections.json`: a COCO results list whose rows also have `category_name` and `file_name`, with
        image ids that count the paths from 1; and the paths that could not be read.

    Raises:
        ValueError: if `output` can't be written.
    """
    require_local("output", output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if output.is_file() else str(error)
        raise ValueError(f"output must be a folder that can be written, got {str(output)!r}: {why}") from error
    detect, pictures = detect_function(model), picture_paths(paths, output)
    results: list[dict[str, Any]] = []
    failed: list[Path] = []
    cut, limit = 0, config.model.max_detections
    rule = pyramid.largest if pyramid else config.input
    for image_id, path, image in readable_images(paths, "predict", failed, rule):
        detections = (
            pyramid.detect_image(image, image_id) if pyramid else detect_image(detect, image, config.input, image_id)
        )
        best = _above(detections, min_score)
        cut += len(best["scores"]) >= limit
        whole = image.pixels if image.is_whole() else load_picture(path, str(path))
        drawn = draw_detections(whole, best["boxes"], best["labels"], best["scores"], model.class_names)
        Image.fromarray(drawn).save(pictures[path])
        for row, label in zip(detections_to_coco([best], model.category_ids), best["labels"], strict=True):
            results.append({**row, "category_name": model.class_names[label], "file_name": str(path)})
    (output / "detections.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if cut:
        LOGGER.warning("%s", limit_line(cut, len(paths) - len(failed), limit, "--max-detections"))
    return results, failed


def readable_images(
    paths: Sequence[Path], task: str, failed: list[Path], rule: InputConfig
) -> Iterator[tuple[int, Path, DecodedImage]]:
    """Yields the images that can be read, with a bar of progress; the others are named on stderr.

    Args:
        paths: image files.
        task: str, what the bar says.
        failed: takes the paths that cannot be read.
        rule: makes the largest image of each, see `decode_picture`.

    Yields:
        The number of the path, counted from 1, the path, and the image.
    """
    for number, path in enumerate(tqdm(paths, desc=task, unit="image", leave=False), start=1):
        try:
            image = decode_picture(path, str(path), size_rule(rule))
        except ValueError as error:
            failed.append(path)
            tqdm.write(f"kfpn: error: {error}", file=sys.stderr)
        else:
            yield number, path, image


def find_images(names: Sequence[str]) -> list[Path]:
    """Returns the image files that names, folders and patterns stand for, in order, each once.

    A name that does not exist is returned as it is, so that it is reported with the images that can't be read. Of a folder
    and of a pattern, files that are no images by their ending, hidden files and folders are passed over, which is said in one line.

    Raises:
        ValueError: if a folder holds no image, or a name is an address (`https://...`).
    """
    paths: list[Path] = []
    for name in names:
        require_local("images", name)
        path = Path(name)
        if path.is_dir():
            paths += _named_images(name, path.iterdir())
        elif path.exists() or not (matches := sorted(glob.glob(name))):
            paths.append(path)  # A name that exists is not a pattern: a file may be called a[1].jpg.
        else:
            files = [file for match in matches if (file := Path(match)).is_file()]
            # A pattern may name images of any ending, but of photos/* only the images are meant.
            paths += _named_images(name, map(Path, matches)) if any(map(is_image_name, files)) else files
    return list(dict.fromkeys(paths))


def _named_images(name: str, paths: Iterable[Path]) -> list[Path]:
    held = images_among(paths)
    if not held.files:
        there = f": there are only {held.passed_over_line()}" if held.passed_over else ""
        raise ValueError(f"{name} must hold images ({', '.join(sorted(image_endings()))}), got none{there}")
    if held.passed_over:
        LOGGER.warning("%s: %d images; passed over: %s", name, len(held.files), held.passed_over_line())
    return held.files


def picture_paths(paths: Sequence[Path], output: Path, ending: str = "") -> dict[Path, Path]:
    """Returns the path of the picture that is made of each image: its name and `ending`, .png, with a number where it is taken.

    No two images have the same picture, and no picture overwrites one of the images.
    """
    taken = {path.resolve() for path in paths}
    pictures = {}
    for path in paths:
        number, picture = 1, output / f"{path.stem}{ending}.png"
        while picture.resolve() in taken:
            number += 1
            picture = output / f"{path.stem}{ending}-{number}.png"
        taken.add(picture.resolve())
        pictures[path] = picture
    return pictures
