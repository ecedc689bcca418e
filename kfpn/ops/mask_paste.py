"""Puts the masks of detections into their images, by the rules of detectron2 and torchvision."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kfpn.config.model import Pasting


def _hat(numbers, at, cells: int):
    """Returns the weights of bilinear interpolation: (D, P) positions in cells -> (D, P, cells), zeros outside of the cells."""
    return numbers.maximum(1.0 - numbers.abs(at[..., None] - numbers.arange(cells, dtype="float32")), 0.0)


def _sampled(numbers, low, high, pixels, cells: int):
    """Returns the weights of detectron2's rule: a pixel's centre takes its value between the cells' centres, 0 beyond them.

    Args:
        numbers: NumPy or `keras.ops`.
        low, high: (D,) float32, the box's sides on this axis, pixels.
        pixels: (P,) float32, the pixels' numbers.
        cells: M.
    """
    share = (pixels[None] + 0.5 - low[:, None]) / (high - low)[:, None]
    return _hat(numbers, share * cells - 0.5, cells)


def _resized(numbers, low, high, pixels, cells: int):
    """Returns the weights of torchvision's rule (`paste_masks_in_image`, padding 1), see `_sampled`.

    The cells get a ring of zeros, the box grows with them and is cut to whole pixels, both ends included.
    """
    ringed = cells + 2
    centre, half = (low + high) * 0.5, (high - low) * 0.5 * (ringed / cells)
    first, last = _toward_zero(numbers, centre - half), _toward_zero(numbers, centre + half)
    length = numbers.maximum(last - first + 1.0, 1.0)[:, None]
    offset = pixels[None] - first[:, None]
    at = numbers.clip((offset + 0.5) * (ringed / length) - 0.5, 0.0, ringed - 1.0)
    inside = numbers.logical_and(offset >= 0.0, offset < length)
    return numbers.where(inside[..., None], _hat(numbers, at, ringed)[..., 1:-1], 0.0)


def _toward_zero(numbers, values):
    return numbers.sign(values) * numbers.floor(numbers.abs(values))


_RULES = {"sampled": _sampled, "resized": _resized}


def paste_masks(
    masks: Any, boxes: Any, height: int, width: int, threshold: float | None = 0.5, rule: Pasting = "sampled"
) -> Any:
    """Puts masks into an image of a given size.

    To show detections in an image of another size, scale the boxes and paste anew. A pasted mask that is resized is another mask.

    Args:
        masks: (D, M, M) float32 in 0..1, of one image's detections: tensors, or NumPy arrays (lists become some).
        boxes: (D, 4) float32 yxyx, pixels of that image.
        height, width: of the image, pixels: ints, or scalar int tensors where `masks` is a tensor.
        threshold: above 0, at most 1: a pixel belongs to the object where its value is at least this; None: the values themselves.
        rule: "sampled" (detectron2) or "resized" (torchvision), the field `pasting` of `ModelConfig`, which comes with the
            weights.

    Returns:
        (D, height, width) bool, or float32 in 0..1 with threshold None; tensors or NumPy arrays, as `masks` is. A row whose box is
        empty is empty. Beside the result there is memory for one detection at a time.

    Raises:
        ValueError: for arrays of other shapes, sizes below 1, a threshold that is none, an unknown rule, or masks outside of 0..1. In
            a graph (`tf.function`, `jax.jit`, a Keras model) the values of tensors are not known, and not checked.
    """
    masks, boxes = (
        _array_of_list(name, given, none) if isinstance(given, list | tuple) else given
        for name, given, none in (("masks", masks, (0, 1, 1)), ("boxes", boxes, (0, 4)))
    )
    _check_arrays(masks, boxes, height, width, rule)
    _check_threshold(threshold)
    if isinstance(masks, np.ndarray):
        dtype = np.float32 if threshold is None else bool
        pasted = np.zeros((len(masks), height, width), dtype)
        for row, part in enumerate(paste_one_by_one(masks, boxes, height, width, threshold, rule)):
            pasted[row][part.window] = part.pixels
        return pasted
    if masks.shape[0] == 0:
        return ops.zeros((0, height, width), "float32" if threshold is None else "bool")
    rows, columns = (ops.cast(ops.arange(side), "float32") for side in (height, width))
    boxes = ops.cast(boxes, "float32")
    return ops.map(lambda parts: paste_one(parts[0], parts[1], (rows, columns), threshold, rule), (masks, boxes))


def paste_one(mask, box, pixels, threshold: float | None = 0.5, rule: Pasting = "sampled"):
    """Puts one mask into its image: tensors (M, M) and (4,) -> (height, width), see `paste_masks`.

    Args:
        mask, box: of one detection.
        pixels: the numbers of the image's rows (height,) and of its columns (width,), float32.
        threshold, rule: of `paste_masks`.
    """
    is_filled = ops.logical_and(ops.all(ops.isfinite(box)), ops.all(box[2:] > box[:2]))
    low, high = box[None, :2], ops.where(is_filled, box[2:], box[:2] + 1.0)[None]
    of_rows, of_columns = (
        _RULES[rule](ops, low[:, axis], high[:, axis], pixels[axis], mask.shape[axis])[0] for axis in (0, 1)
    )
    values = ops.where(is_filled, of_rows @ ops.cast(mask, "float32") @ ops.transpose(of_columns), 0.0)
    return values if threshold is None else ops.logical_and(values >= threshold, is_filled)


class Part(NamedTuple):
    """Holds a pasted mask as far as it reaches.

    Attributes:
        window: the rows and columns of the image that it fills; all others are outside of the object.
        pixels: (h, w) bool or float32, of the window.
    """

    window: tuple[slice, slice]
    pixels: np.ndarray


def paste_one_by_one(
    masks: np.ndarray,
    boxes: np.ndarray,
    height: int,
    width: int,
    threshold: float | None = 0.5,
    rule: Pasting = "sampled",
) -> Iterator[Part]:
    """Gives pasted masks one after another, each as far as it reaches: the arguments of `paste_masks`, as NumPy arrays."""
    _check_arrays(masks, boxes, height, width, rule)
    nothing = Part((slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32 if threshold is None else bool))
    for mask, box in zip(masks, np.asarray(boxes, np.float32), strict=True):
        if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            yield nothing
            continue
        # A cell beyond the box on each side, and a pixel for the rounding of the box.
        reach = (box[2:] - box[:2]) / mask.shape[0] + 2.0
        first = np.clip(np.floor(box[:2] - reach), 0, (height, width)).astype(int)
        last = np.clip(np.ceil(box[2:] + reach), 0, (height, width)).astype(int)
        if (last <= first).any():
            yield nothing
            continue
        of_rows, of_columns = (
            _RULES[rule](
                np,
                box[None, axis],
                box[None, axis + 2],
                np.arange(first[axis], last[axis], dtype=np.float32),
                mask.shape[axis],
            )[0]
            for axis in (0, 1)
        )
        values = of_rows @ mask.astype(np.float32) @ of_columns.T
        window = (slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1])))
        yield Part(window, values if threshold is None else values >= threshold)


def _array_of_list(name: str, given: Any, none: tuple[int, ...]) -> np.ndarray:
    try:
        return np.asarray(given) if len(given) else np.zeros(none)
    except ValueError:
        raise ValueError(f"{name} must have rows of one length, got {str(given)[:40]}") from None


def _check_arrays(masks, boxes, height: int, width: int, rule: str) -> None:
    for name, given in (("masks", masks), ("boxes", boxes)):
        if not hasattr(given, "shape") or (isinstance(given, np.ndarray) and given.dtype.kind not in "bfiu"):
            raise ValueError(
                f"{name} must be an array or a tensor of numbers, got {type(given).__name__} {str(given)[:40]!r}"
            )
    if len(masks.shape) != 3 or masks.shape[1] != masks.shape[2] or (masks.shape[1] == 0 and masks.shape[0] != 0):
        raise ValueError(f"masks must be (D, M, M), got {tuple(masks.shape)}: paste the detections of one image")
    _check_values(_known_values(masks))
    if tuple(boxes.shape) != (masks.shape[0], 4):
        raise ValueError(f"boxes must be ({masks.shape[0]}, 4), a box a mask, got {tuple(boxes.shape)}")
    known = [side for side in (height, width) if not _is_tensor(side)]
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in known):
        raise ValueError(f"height and width must be whole numbers, got {height!r} and {width!r}: round them")
    if min(known, default=1) < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    if not isinstance(rule, str) or rule not in _RULES:
        raise ValueError(f"rule must be {' or '.join(map(repr, _RULES))}, got {rule!r}")


def _known_values(masks) -> np.ndarray:
    """Returns the values of an array or of a tensor; of a tensor in a graph, which has none yet, an empty array."""
    if isinstance(masks, np.ndarray):
        return masks
    try:
        return ops.convert_to_numpy(masks)
    except (NotImplementedError, TypeError, ValueError):  # what TensorFlow, JAX and Keras raise in a graph
        return np.zeros(0)


def _check_values(values: np.ndarray) -> None:
    if not values.size:
        return
    if np.isnan(values).any():
        raise ValueError("masks must be in 0..1, got NaN, as an overflow of half precision gives")
    least, most = float(values.min()), float(values.max())
    if least < 0.0 or most > 1.0:
        raise ValueError(f"masks must be in 0..1, got {least:g} to {most:g}: divide what is 0..255 by 255")


def _is_tensor(value: Any) -> bool:
    """Tells whether a value is a tensor of Keras' backend, which in a graph is not known yet."""
    return hasattr(value, "shape") and not isinstance(value, np.ndarray | np.generic)


def _check_threshold(threshold: float | None) -> None:
    if threshold is None or _is_tensor(threshold):
        return
    is_number = np.ndim(threshold) == 0 and np.asarray(threshold).dtype.kind in "iuf"
    if not (is_number and 0.0 < threshold <= 1.0):
        raise ValueError(
            f"threshold must be above 0 and at most 1, or None, got {threshold!r}: at 0 all of the image would be the object"
        )
