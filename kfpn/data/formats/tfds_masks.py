"""Reads the masks of TFDS examples: one picture of numbered objects, or a picture for each object."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.mask_content import NOTHING, pack_bitmap
from kfpn.data.mask_faults import usable_mask
from kfpn.data.upright_masks import upright_mask

OF_IMAGE = "mask"
"""A picture whose pixels are 0, or i + 1 where object i is, as `shapes` has it."""
OF_OBJECT = ("segmentation", "mask")
"""A picture of each object, among its other fields: pixels are not 0 where it is."""
OTHER_NUMBERS = "pictures of masks with numbers that no object has, left out"


def features_with_masks(features: tfds.features.FeaturesDict, wanted: dict[str, Any]) -> tfds.features.FeaturesDict:
    """Returns the features to read, with those of masks that the data set has.

    Args:
        features: of the data set.
        wanted: those that are read without masks.
    """
    inner = features["objects"].feature
    for field in OF_OBJECT:
        if field in inner and isinstance(inner[field], tfds.features.Image):
            fields = {**wanted["objects"].feature, field: inner[field]}
            return tfds.features.FeaturesDict({**wanted, "objects": tfds.features.Sequence(fields)})
    if OF_IMAGE in features and isinstance(features[OF_IMAGE], tfds.features.Image):
        return tfds.features.FeaturesDict({**wanted, OF_IMAGE: features[OF_IMAGE]})
    return tfds.features.FeaturesDict(wanted)


def masks_of_example(
    example: dict[str, Any], header: tuple[int, ...], where: str, faults: AnnotationFaults
) -> list[bytes]:
    """Returns the masks of an example's objects, packed, in the image after EXIF rotation; empty where one has none.

    Args:
        example: read with `features_with_masks`.
        header: height and width of its image after the rotation, and EXIF's orientation.
        where: what warnings call it.
        faults: counts what is left out.
    """
    height, width, orientation = header[:3]
    stored = (width, height) if orientation >= 5 else (height, width)
    count = len(example["objects"]["label"])
    field = next((field for field in OF_OBJECT if field in example["objects"]), None)
    if field is not None:
        drawn = [np.asarray(picture)[..., 0] != 0 for picture in example["objects"][field]]
    elif OF_IMAGE in example:
        numbers = np.asarray(example[OF_IMAGE])[..., 0]
        if int(numbers.max(initial=0)) > count:
            faults.add(OTHER_NUMBERS, where)
            return [NOTHING] * count
        drawn = [numbers == i + 1 for i in range(count)]
    else:
        return [NOTHING] * count
    boxes = np.asarray(example["objects"]["bbox"], np.float64).reshape(-1, 4) * (*stored, *stored)
    fitting = [
        usable_mask(pack_bitmap(picture), stored, where, faults, box) for picture, box in zip(drawn, boxes, strict=True)
    ]
    return [upright_mask(content, (height, width), orientation) for content in fitting]
