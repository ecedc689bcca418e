"""Counts how often an image is taken in an epoch, so that rare classes are seen more often (LVIS, Gupta et al. 2019, appendix B)."""

import numpy as np

from kfpn.config.input_config import InputConfig
from kfpn.data.object_counts import classes_of_images
from kfpn.data.record import Source
from kfpn.data.trained_records import describe_left_out, trained_records


def repeat_factors(source: Source, kept: np.ndarray, threshold: float) -> np.ndarray | None:
    """Returns how often each record is taken in an epoch, on average; None: each once.

    A class's factor is max(1, sqrt(threshold / share)), where share is that of the images with a box of it (without crowd, which
    is not trained on). An image's factor is the largest of its classes, 1 without a box.

    Args:
        source: the data set.
        kept: (N,) indices of the records that are trained on, which are all images that count.
        threshold: `input.repeat_threshold`.

    Returns:
        (N,) float64, at least 1, or None where no image is taken more than once.
    """
    if not threshold:
        return None
    images, labels, _ = classes_of_images(source)
    place = np.full(len(source), -1, np.int64)
    place[kept] = np.arange(len(kept))
    images, labels = place[images][place[images] >= 0], labels[place[images] >= 0]
    share = np.bincount(labels, minlength=len(source.class_names)) / len(kept)
    of_class = np.sqrt(np.maximum(threshold / np.maximum(share, 1e-12), 1.0))
    factors = np.ones(len(kept))
    np.maximum.at(factors, images, of_class[labels])
    return factors if (factors > 1.0).any() else None


def describe_repeats(source: Source, config: InputConfig) -> str | None:
    """Returns one line on the images that are taken more than once in an epoch; None: there are none."""
    factors = repeat_factors(source, trained_records(source, config), config.repeat_threshold)
    if factors is None:
        return None
    count = int((factors > 1.0).sum())
    return (
        f"{source.name}: takes {count:,} image{'' if count == 1 else 's'} of rare classes up to {factors.max():.1f} times an epoch, which is "
        f"{factors.sum() / len(factors):.2f} times as long (--input.repeat-threshold 0 takes each once)"
    )


def describe_order(source: Source, config: InputConfig) -> list[str]:
    """Returns lines on the images that training leaves out or takes more than once."""
    lines = (describe_left_out(source, config), describe_repeats(source, config))
    return [line for line in lines if line is not None]
