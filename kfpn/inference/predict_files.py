"""Detects objects in image files, and writes annotated pictures and one file of detections."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from PIL import Image

from kfpn.config.checks import require_local
from kfpn.config.run import Config
from kfpn.data.image import load_picture
from kfpn.data.jpeg_fraction import as_decoded
from kfpn.evaluation.detect import detect_image
from kfpn.evaluation.detection_limit import limit_line
from kfpn.evaluation.source_pass import detect_function
from kfpn.inference.detections import Labelling, LeastScore
from kfpn.inference.image_pyramid import ImagePyramid
from kfpn.inference.images_of_user import picture_paths, readable_images

LOGGER = logging.getLogger("kfpn")


def predict_images(
    model: keras.Model,
    config: Config,
    paths: Sequence[Path],
    output: Path,
    min_score: LeastScore,
    pyramid: ImagePyramid | None = None,
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Writes an annotated PNG of each image, with its masks where the model has any, and `detections.json`.

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
        image ids that count the paths from 1, and with masks `segmentation`; and the paths that could not be read.

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
    labelling = Labelling(model.class_names, min_score, model.category_ids, config.model.pasting)
    cut, limit = 0, config.model.max_detections
    rule = pyramid.largest if pyramid else config.input
    for image_id, path, image in readable_images(paths, "predict", failed, rule):
        detections = (
            pyramid.detect_image(image, image_id) if pyramid else detect_image(detect, image, config.input, image_id)
        )
        best = labelling.detections(detections, as_decoded(image).size)
        cut += len(best) >= limit
        whole = image.pixels if image.is_whole() else load_picture(path, str(path))
        Image.fromarray(best.draw(whole)).save(pictures[path])
        results += [{**row, "file_name": str(path)} for row in best.to_coco(image_id)]
    (output / "detections.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if cut:
        LOGGER.warning("%s", limit_line(cut, len(paths) - len(failed), limit, "--max-detections"))
    return results, failed
