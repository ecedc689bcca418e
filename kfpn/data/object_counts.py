"""Counts the objects of each image, and warns of images with more objects than a detector can give."""

import logging
from typing import NamedTuple

import numpy as np

from kfpn.config.model import ModelConfig
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.record import Source

LOGGER = logging.getLogger("kfpn")


class ClassesOfImages(NamedTuple):
    """Holds the classes that each image has objects of: P pairs of an image and a class, the images in order.

    Attributes:
        images: (P,) int64, index of the image.
        labels: (P,) int64, the class.
        counts: (P,) int64, objects of this class in this image, at least 1. Crowd does not count.
    """

    images: np.ndarray
    labels: np.ndarray
    counts: np.ndarray


def classes_of_images(source: Source) -> ClassesOfImages:
    """Returns the classes of each image, with the number of their objects.

    Args:
        source: a data set. The records of a source of one's own are read one after another.
    """
    if isinstance(source, AnnotatedSource):
        wanted = ~source.annotations.crowd
        images, labels = source.annotations.image_of_box()[wanted], source.annotations.labels[wanted]
    else:
        own = [record.labels[~record.crowd] for record in (source[index] for index in range(len(source)))]
        images = np.repeat(np.arange(len(own)), [len(of_image) for of_image in own])
        labels = np.concatenate([np.zeros(0, np.int64), *own])
    classes = int(labels.max(initial=0)) + 1
    pairs, counts = np.unique(images * classes + labels.astype(np.int64), return_counts=True)
    return ClassesOfImages(pairs // classes, pairs % classes, counts)


def objects_of_images(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many objects each image has that are no crowd: in all, and of the class that it has most of.

    Args:
        source: as `classes_of_images` takes it.

    Returns:
        (N,) int each.
    """
    images, _, counts = classes_of_images(source)
    objects, largest = np.zeros(len(source), int), np.zeros(len(source), int)
    np.add.at(objects, images, counts)
    np.maximum.at(largest, images, counts)
    return objects, largest


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
