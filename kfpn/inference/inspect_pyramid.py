"""Shows what a detector does with an image, step by step: maps of its levels, objectness, RoIs and detections, on a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kfpn.config.checks import require_local
from kfpn.config.model import ModelConfig, Pasting
from kfpn.config.run import Config
from kfpn.data.augment import prepare_image
from kfpn.data.image_endings import image_endings
from kfpn.data.jpeg_fraction import AnyImage
from kfpn.evaluation.segmentations import parts_of, segmented
from kfpn.inference.images_of_user import picture_paths, readable_images
from kfpn.modeling.detector import Detector, ImageSizes
from kfpn.modeling.pyramid import PYRAMIDS
from kfpn.modeling.submodels import Submodels
from kfpn.ops.pyramid_levels import pooled_levels, sizes_by_level, stride
from kfpn.ops.roi_align import roi_levels
from kfpn.plotting.pyramid_page import draw_page
from kfpn.plotting.pyramid_view import FeatureMap, Objectness, PyramidView

PAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class InspectedDetector(Detector):
    """Builds the detector on the graph of its submodel `features`, so that inner layers of that graph can be outputs too."""

    def features(self, images, image_sizes, training=None):
        """Returns the levels of that graph."""
        return self.submodels.features.output


def model_with_intermediates(submodels: Submodels, config: ModelConfig) -> keras.Model:
    """Builds the detector with everything between the image and the detections as outputs.

    Args:
        submodels: of `load_submodels`.
        config: the one they were built with.

    Returns:
        A functional model of images (B, H, W, 3) without padding; its outputs are a dict: `stages` {"C2": ...} and
        `levels` {"P2": ...} of (B, H, W, C) maps, `logits` [(B, N_l)] of the RPN, `rois` (B, R, 4) and `roi_scores`
        (B, R) of the proposals, and `detections`, see `build_detector`.
    """
    graph, detector = submodels.features, InspectedDetector(submodels, config, padded=False)
    sizes = ImageSizes()(graph.input)
    stages = detector.run(graph.input, sizes)
    numbers = range(2, PYRAMIDS[config.pyramid].last_stage + 1)
    return keras.Model(
        graph.input,
        {
            "stages": {f"C{number}": graph.get_layer(f"C{number}").output for number in numbers},
            "levels": stages.levels,
            "logits": stages.rpn["logits"],
            "rois": stages.rois.boxes,
            "roi_scores": stages.rois.scores,
            "detections": detector.finish(stages, sizes),
        },
    )


def view_image(model: keras.Model, config: Config, image: AnyImage, class_names: Sequence[str]) -> PyramidView:
    """Runs an image through a detector and returns what its page shows.

    Args:
        model: of `model_with_intermediates`.
        config: of the run; its `input` says how images are resized.
        image: (H, W, 3) uint8 RGB, any size, or an image as `decode_picture` gives it.
        class_names: of labels 0 .. K-1.
    """
    resized, size = prepare_image(image, config.input)
    outputs = keras.tree.map_structure(
        lambda value: ops.convert_to_numpy(value)[0], model(resized[None].astype(np.float32), training=False)
    )
    objectness = _objectness(outputs["levels"], outputs["logits"], config.model)
    # With padding "foreign" the maps have cells beyond the image, which the page does not show.
    stages, levels = (
        {name: _inside(values, stride(name), size) for name, values in outputs[key].items()}
        for key in ("stages", "levels")
    )
    exists = np.isfinite(outputs["roi_scores"])
    rois, detections = outputs["rois"][exists], outputs["detections"]
    rows = slice(int(detections["num_detections"]))
    pooled = pooled_levels(config.model)
    return PyramidView(
        image=resized,
        stages=[_feature_map(name, values) for name, values in stages.items()],
        levels=[_feature_map(name, values) for name, values in levels.items() if name not in stages],
        objectness=[
            dataclasses.replace(one, probability=_inside(one.probability, one.stride, size)) for one in objectness
        ],
        rois=rois,
        roi_scores=_sigmoid(outputs["roi_scores"][exists]),
        roi_levels=ops.convert_to_numpy(roi_levels(ops.convert_to_tensor(rois), config.model.canonical_size, pooled)),
        pooled=pooled,
        boxes=detections["boxes"][rows],
        labels=detections["labels"][rows],
        scores=detections["scores"][rows],
        class_names=class_names,
        **_masks(detections, rows, size, config.model.pasting),
    )


def _masks(detections: Mapping[str, np.ndarray], rows: slice, size: Sequence[int], rule: Pasting) -> dict[str, Any]:
    if "masks" not in detections:
        return {}
    shown = {name: detections[name][rows] for name in ("boxes", "masks")}
    return {"masks": shown["masks"], "parts": parts_of(segmented(shown, size, rule))}


def _inside(values: np.ndarray, step: int, size: Sequence[int]) -> np.ndarray:
    """Returns the cells of a map (H, W, ...) of stride `step` that an image of a size in pixels fills."""
    height, width = size
    return values[: -(-height // step), : -(-width // step)]


def _feature_map(name: str, values: np.ndarray) -> FeatureMap:
    # In half precision the squares would overflow.
    return FeatureMap(name, stride(name), values.shape[-1], np.linalg.norm(values.astype(np.float32), axis=-1))


def _objectness(
    levels: Mapping[str, np.ndarray], logits: Sequence[np.ndarray], config: ModelConfig
) -> list[Objectness]:
    sizes, maps = sizes_by_level(config.anchor_sizes, len(config.levels)), []
    for level, flat, own in zip(config.levels, logits, sizes, strict=True):
        # Anchors are ordered by y, x, size and ratio.
        best = flat.reshape(*levels[level].shape[:2], len(own), len(config.aspect_ratios)).max(axis=-1)
        maps += [Objectness(level, stride(level), size, _sigmoid(best[..., i])) for i, size in enumerate(own)]
    return maps


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(ops.sigmoid(ops.convert_to_tensor(logits, "float32")))


def page_paths(images: Sequence[Path], output: str) -> dict[Path, Path]:
    """Returns the path of each image's page, and makes the folder.

    Args:
        images: image files.
        output: a folder, made if it is not there, or, for one image, a file that ends with .png, .jpg or .jpeg.

    Raises:
        ValueError: if there are several images for one file, the file is one of them, or nothing can be written there.
    """
    require_local("output", output)
    target = Path(output)
    suffix = target.suffix.lower()
    if target.is_dir() or suffix not in image_endings():
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = "it is a file" if target.is_file() else str(error)
            raise ValueError(f"output must be a folder that can be written, got {output!r}: {why}") from error
        return picture_paths(images, target, "_pyramid")
    if suffix not in PAGE_SUFFIXES:
        raise ValueError(
            f"output must be a folder, or a file that ends with {', '.join(PAGE_SUFFIXES)}, got {output!r}"
        )
    if len(images) > 1:
        raise ValueError(f"output must be a folder for {len(images)} images, got the file {output!r}")
    if not target.parent.is_dir():
        raise ValueError(f"output must lie in a folder that is there, got {output!r}")
    if target.resolve() in {image.resolve() for image in images}:
        raise ValueError(f"output must not be the image itself, got {output!r}")
    return dict.fromkeys(images, target)


def visualize_images(
    submodels: Submodels,
    config: Config,
    class_names: Sequence[str],
    pages: Mapping[Path, Path],
    min_score: float = 0.5,
    proposals: int = 50,
) -> list[Path]:
    """Draws a page of each image, with its levels, its proposals, its RoIs and its detections.

    An image that can't be read is named on stderr, and the others go on.

    Args:
        submodels: of `load_submodels`.
        config: of the run.
        class_names: of labels 0 .. K-1.
        pages: image -> page, see `page_paths`.
        min_score: detections below it are left out.
        proposals: the largest number of proposals and of RoIs that are drawn, the best ones.

    Returns:
        The images that could not be read.
    """
    model = model_with_intermediates(submodels, config.model)
    failed: list[Path] = []
    for _, path, image in readable_images(list(pages), "visualize", failed, config.input):
        draw_page(view_image(model, config, image, class_names), pages[path], min_score, proposals)
    return failed
