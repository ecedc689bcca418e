"""Counts the objects of each image, and warns of images with more objects than a detector can give."""

import logging

import numpy as np

from kfpn.config.model import ModelConfig
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.record import Source

LOGGER = logging.getLogger("kfpn")


def objects_of_images(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many objects each image has that are no crowd: in all, and of the class that it has most of.

    Args:
        source: a data set. The records of a source of one's own are read one after another.

    Returns:
        (N,) int each.
    """
    if not isinstance(source, AnnotatedSource):
        counts = [np.bincount(record.labels[~record.crowd]) for record in (source[i] for i in range(len(source)))]
        return np.array([c.sum() for c in counts], int), np.array([c.max(initial=0) for c in counts], int)
    held, images, classes = source.annotations, len(source), max(1, len(source.class_names))
    of_image = held.image_of_box()[~held.crowd]
    labels = held.labels[~held.crowd].astype(np.int64)
    largest = np.zeros(images, int)
    pairs, counts_of_pairs = np.unique(of_image * classes + labels, return_counts=True)
    np.maximum.at(largest, pairs // classes, counts_of_pairs)
    return np.bincount(of_image, minlength=images), largest


def warn_of_crowded_images(source: Source, model: ModelConfig) -> None:
    """Warns of images with more objects than the detector's counts let it find, and names the options.

    Args:
        source: to evaluate on. A source of one's own that keeps no annotations at hand is not looked at.
        model: the network's options.
    """
    if not isinstance(source, AnnotatedSource) or not len(source):
        return
    objects, _ = objects_of_images(source)
    most = int(objects.max())
    wanted = -(-most * 5 // 4 // 100) * 100  # a quarter more, in whole hundreds
    low = [name for name in ("max_detections", "post_nms_test", "pre_nms_test") if getattr(model, name) < most]
    if not low:
        return
    least = min(getattr(model, name) for name in low)
    shown = " ".join(
        f"--model.{name.replace('_', '-')} {wanted if name == 'max_detections' else 2 * wanted}" for name in low
    )
    held = ", ".join(f"model.{name} {getattr(model, name)}" for name in low)
    LOGGER.warning(
        "%s: images with more objects than the detector can give (%s): %d of %d, up to %d objects: use %s",
        source.name, held, int((objects > least).sum()), len(source), most, shown,
    )  # fmt: skip
