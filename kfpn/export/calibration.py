"""Reads the real images that eight-bit exports are calibrated with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kfpn.config.checks import require_local
from kfpn.config.spread import evenly_spread
from kfpn.data.formats import open_source
from kfpn.data.image import load_image, load_picture
from kfpn.data.image_endings import images_among
from kfpn.inference.images_of_user import find_images


def calibration_pictures(data: str, count: int) -> Iterator[np.ndarray]:
    """Yields up to `count` images (H, W, 3) uint8 of a data set or a folder, evenly spread over it.

    Args:
        data: as `kfpn train --data` takes it, or a folder of images.
        count: int.

    Raises:
        ValueError: if there are no images, the data set cannot be opened, or an image cannot be read.
    """
    require_local("calibration_data", data)
    is_folder = Path(data).is_dir()
    if is_folder and images_among(Path(data).iterdir()).files:
        paths = find_images([data])
        for index in evenly_spread(len(paths), count).tolist():
            yield load_picture(paths[index], str(paths[index]))
        return
    try:
        source = open_source(data, "train")
    except (ValueError, OSError) as error:
        rule = "hold images or a data set" if is_folder else "be a folder of images or a data set"
        raise ValueError(f"calibration_data must {rule}, got {data!r}: {error}") from error
    if len(source) == 0:
        raise ValueError(f"calibration_data must hold images, got none in {data!r}")
    for index in evenly_spread(len(source), count).tolist():
        yield load_image(source[index])
