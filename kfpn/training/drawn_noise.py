"""Draws the noise of the samplers for each image from its number with NumPy: that of `kfpn.training.sampler_noise`, without TensorFlow."""

import zlib
from collections.abc import Mapping

import numpy as np

from kfpn.data.philox import uniform

PREFIX = "noise_"
"""What stands before the name of a sampler in a batch that brings its noise."""
LEFT_OUT = ("sample_index", "original_sizes")
"""What batches have until their noise is drawn, and the losses do not need."""


def salted_seed(seed: int, name: str) -> int:
    """Returns the seed of a sampler: two samplers draw other numbers.

    Args:
        seed: of the run.
        name: of the sampler.
    """
    return seed ^ zlib.crc32(name.encode())


def drawn_noise(seed: int, sample_index: np.ndarray, shapes: Mapping[str, tuple]) -> dict[str, np.ndarray]:
    """Returns what `kfpn.training.sampler_noise.sampler_noise` draws for each image.

    Args:
        seed: of the run.
        sample_index: (B,) int64, numbers of the samples since the start of training.
        shapes: name of a sampler -> shape of the noise of one image.

    Returns:
        Name -> (B, *shape) float32 in [0, 1).
    """
    numbers = sample_index.tolist()
    return {
        name: np.stack([uniform(shape, (salted_seed(seed, name), number)) for number in numbers])
        for name, shape in shapes.items()
    }
