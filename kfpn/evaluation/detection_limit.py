"""Says where a detector's limit of detections cuts, and by which figure its weights are compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from kfpn.data.object_counts import objects_of_images
from kfpn.data.record import Source
from kfpn.evaluation.coco_figures import COCO_LIMITS, OF_MASKS, figures_at

FOUND_IN_ALL = "found_in_all"
"""Key of the number of detections that an image had before those of classes that the data lacks were left out."""


def images_at_limit(detections: Sequence[Mapping[str, Any]], limit: int) -> int:
    """Returns the number of images that have as many detections as the limit allows.

    Args:
        detections: of `evaluate_source` or `detect_source`.
        limit: the most detections of an image, `model.max_detections`.
    """
    return sum(one.get(FOUND_IN_ALL, len(one["scores"])) >= limit for one in detections)


def limit_line(cut: int, images: int, limit: int, option: str) -> str:
    """Returns one line that says of how many images the detections were cut at the limit.

    Args:
        cut: images with as many detections as the limit allows.
        images: images in all.
        limit: the most detections of an image, `model.max_detections`.
        option: what raises it, as people write it.
    """
    return f"cut by model.max_detections: {cut} of {images} images have all the {limit} detections that it allows; {option} allows more"


def full_images_line(full: int, images: int, limit: int, option: str) -> str:
    """Returns one line that says how many images of an evaluation have all detections that the limit allows.

    An evaluation counts detections of every score, so this is usual, and says little unless there are as many objects.

    Args:
        full: images with as many detections as the limit allows.
        images, limit, option: as for `limit_line`.
    """
    return (
        f"{full} of {images} images have {limit} detections, as many as model.max_detections allows; most are of low score, so this "
        f"is no fault unless an image has nearly as many objects: then {option} allows more"
    )


def deciding_figure(source: Source, limit: int) -> str:
    """Returns the name of the figure by which weights are compared: AP, or AP@N where COCO's 100 leaves objects out.

    COCO counts 100 detections of an image and a class. Where an image has more objects of one class, 100 detections can't
    find them all, and AP says little of which weights find more.

    Args:
        source: of the validation images.
        limit: the most detections of an image that the detector gives.
    """
    names = figures_at(limit)
    if not names:
        return "AP"
    _, of_one_class = objects_of_images(source)
    return names[0] if of_one_class.max(initial=0) > COCO_LIMITS[-1] else "AP"


def own_limit_figures(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the figures at the detector's own limit that an evaluation has: AP@N, AP50@N, AP75@N, AR@N, also of masks."""
    kinds = ("AP", "AP50", "AP75", "AR")
    return tuple(name for name in figures if "@" in name and name.removeprefix(OF_MASKS).partition("@")[0] in kinds)
