"""A detector on a user's image files: annotated pictures, and one file of detections."""

import glob
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from PIL import Image
from tqdm import tqdm

from kfpn.config.run import Config
from kfpn.data.image import load_picture
from kfpn.evaluation.coco_figures import detections_to_coco
from kfpn.evaluation.detect import detect_function, detect_image
from kfpn.inference.image_pyramid import ImagePyramid
from kfpn.plotting.draw_boxes import draw_detections

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def predict_images(
    model: keras.Model,
    config: Config,
    paths: Sequence[Path],
    output: Path,
    min_score: float,
    pyramid: ImagePyramid | None = None,
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Writes an annotated PNG of each image, and `detections.json`.

    An image that can't be read is named on stderr, and the others go on.

    Args:
        model: from `load_detector(workdir, padded=True)`.
        config: of the run; its `input` says how images are resized.
        paths: image files.
        output: folder, made if it is not there.
        min_score: detections below it are left out.
        pyramid: of the model, to look at each image in several sizes; None: in the run's own.

    Returns:
        What `detections.json` holds (a COCO results list with `category_name` and `file_name` besides; image ids
        count the paths from 1), and the paths that could not be read.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if output.is_file() else str(error)
        raise ValueError(f"output must be a folder that can be written, got {str(output)!r}: {why}") from error
    detect, pictures = detect_function(model), picture_paths(paths, output)
    results: list[dict[str, Any]] = []
    failed = []
    for image_id, path in enumerate(tqdm(paths, desc="predict", unit="image", leave=False), start=1):
        try:
            image = load_picture(path, str(path))
        except ValueError as error:
            failed.append(path)
            tqdm.write(f"kfpn: error: {error}", file=sys.stderr)
            continue
        found = pyramid.detect_image(image, image_id) if pyramid else detect_image(detect, image, config, image_id)
        keep = found["scores"] >= min_score
        found |= {name: found[name][keep] for name in ("boxes", "labels", "scores")}
        drawn = draw_detections(image, found["boxes"], found["labels"], found["scores"], model.class_names)
        Image.fromarray(drawn).save(pictures[path])
        for row, label in zip(detections_to_coco([found], model.category_ids), found["labels"], strict=True):
            results.append({**row, "category_name": model.class_names[label], "file_name": str(path)})
    (output / "detections.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results, failed


def find_images(names: Sequence[str]) -> list[Path]:
    """Returns the files that names, folders and patterns stand for, in order, each once.

    What does not exist is returned as it is, so that it is reported with the images that can't be read.

    Raises:
        ValueError: if a folder holds no image.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
            if not files:
                raise ValueError(f"{name} must hold images ({', '.join(sorted(IMAGE_SUFFIXES))}), got none")
            found += files
        else:
            # A file may be called a[1].jpg: a name that exists is not a pattern.
            found += [path] if path.exists() else [Path(file) for file in sorted(glob.glob(name))] or [path]
    return list(dict.fromkeys(found))


def picture_paths(paths: Sequence[Path], output: Path, ending: str = "") -> dict[Path, Path]:
    """Returns where the picture made of each image goes: its name and `ending` as .png, numbered where that is taken.

    No two images share a picture, and none takes the place of an image that is read.
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
