"""Prepares the inputs of TF-TRT: images for INT8 calibration, and the sizes that engines are built for."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kfpn.config.run import InputConfig
from kfpn.data.augment import prepare_image, resize_image


def profile_inputs(shape: tuple[int, int, int, int], dynamic: bool) -> Iterator[dict[str, Any]]:
    """Yields the inputs that engines are built for. TF-TRT's profile spans the sizes between them.

    Args:
        shape: (B, H, W, 3).
        dynamic: bool. True: also the batch with height and width exchanged, and one square image of half the shorter side.
    """
    batch, height, width, _ = shape
    sizes = [(batch, height, width)]
    if dynamic:
        half = -(-min(height, width) // 64) * 32
        sizes += [(batch, width, height), (1, half, half)]
    rng = np.random.default_rng(0)
    for count, rows, columns in sizes:
        images = rng.integers(0, 256, (count, rows, columns, 3), np.uint8)
        yield {"images": images, "image_sizes": np.full((count, 2), (rows, columns), np.int32)}


def calibration_batches(
    pictures: Iterable[np.ndarray], config: InputConfig, shape: tuple[int, int, int, int]
) -> Iterator[dict[str, Any]]:
    """Prepares images as `kfpn predict` does and pads them to one size.

    An image that is larger than the input is shrunk as a whole. The last batch is filled up with its own images, because all
    batches of a calibration must have one size.

    Args:
        pictures: (H, W, 3) uint8.
        config: the run's resize rule.
        shape: (B, H, W, 3) of the batches.
    """
    rows: list[np.ndarray] = []
    for picture in pictures:
        rows.append(_fit(picture, config, shape[1:3]))
        if len(rows) == shape[0]:
            yield _stack(rows, shape)
            rows = []
    if rows:
        yield _stack([rows[i % len(rows)] for i in range(shape[0])], shape)


def _fit(picture: np.ndarray, config: InputConfig, canvas: tuple[int, int]) -> np.ndarray:
    image, (height, width) = prepare_image(picture, config)
    factor = min(canvas[0] / height, canvas[1] / width)
    if factor >= 1.0:
        return image
    return resize_image(picture, (max(int(height * factor), 1), max(int(width * factor), 1)))


def _stack(images: list[np.ndarray], shape: tuple[int, int, int, int]) -> dict[str, Any]:
    batch = np.zeros(shape, np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return {"images": batch, "image_sizes": np.array([image.shape[:2] for image in images], np.int32)}
