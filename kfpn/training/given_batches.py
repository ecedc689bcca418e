"""Checks batches that others made: their shapes when a step is built, and on the host the values that no step can check."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import GeneratorType
from typing import Any

import keras
import numpy as np
from keras import ops

MASKS = {True: "gt_outlines", False: "gt_masks"}
"""Whether the targets of masks are made on the host -> what a batch for a mask head has for it, beside `gt_has_mask`."""
SHAPES: dict[str, tuple[str | int, ...]] = {
    "images": ("B", "H", "W", 3), "image_sizes": ("B", 2), "gt_boxes": ("B", "G", 4), "gt_labels": ("B", "G"),
    "gt_crowd": ("B", "G"), "gt_has_mask": ("B", "G"), "gt_masks": ("B", "G", "S", "S"), "gt_outlines": ("B", "G"),
    "record_index": ("B",),
}  # fmt: skip
"""What a batch may have -> its shape. Equal letters are equal numbers."""
NEEDED = ("images", "image_sizes", "gt_boxes", "gt_labels", "gt_crowd")
"""What every batch has."""
DTYPES = {
    "image_sizes": "int32",
    "gt_boxes": "float32",
    "gt_labels": "int32",
    "gt_crowd": "bool",
    "gt_has_mask": "bool",
}
"""What the losses compute with, whatever a batch brings: NumPy makes float64 and int64 where nobody says otherwise."""
EMPTY_ROW = {"gt_boxes": 0, "gt_labels": -1, "gt_crowd": False, "gt_has_mask": False, "gt_masks": 0, "noise_roi": 0}
"""What has a row for each box -> the value of a row without one."""
DARK = 3.0
"""Images of 0..255 whose largest value is below this are all but black: most likely they were divided by 255 or normalized."""
CHECKED = "kfpn_checked"
"""The attribute of data whose batches are checked already: `fit` hands its validation data to `evaluate`."""

Check = Callable[[Mapping[str, Any]], None]


def require_entries(batch: Any, needed: Sequence[str]) -> None:
    """Checks that a batch is a dict, has what it needs, and that the shapes go together.

    Raises:
        ValueError: naming what is missing, or the first entry of another shape.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"batch must be a dict with {', '.join(needed)}, got a {type(batch).__name__}: kfpn.dataset makes such batches; what detects in "
            "images is the attribute `detector` of a model of kfpn.trainable"
        )
    if missing := [name for name in needed if name not in batch]:
        raise ValueError(
            f"batch must have {', '.join(needed)}, got {', '.join(batch)}: {', '.join(missing)} is missing; kfpn.dataset makes "
            "such batches"
        )
    require_shapes(batch)


def require_shapes(batch: Mapping[str, Any]) -> None:
    """Checks the shapes of a batch, as far as they are known before the step runs.

    Raises:
        ValueError: naming the first entry that has another shape, or does not go with those before it.
    """
    known: dict[str, int] = {}
    for name, wanted in SHAPES.items():
        got = _static_shape(batch[name]) if name in batch else None
        if got is None:
            continue
        before = dict(known)
        fits = len(got) == len(wanted) and all(
            size is None or size == (known.setdefault(place, size) if isinstance(place, str) else place)
            for place, size in zip(wanted, got, strict=True)
        )
        if not fits:
            of_others = ", ".join(f"{place} {size}" for place, size in before.items() if place in wanted)
            raise ValueError(
                f"{name} must have the shape ({', '.join(map(str, wanted))}{',' if len(wanted) == 1 else ''}), got {got}"
                f"{f' with {of_others} of what stands before it' if of_others else ''}: help(kfpn.trainable) lists what a batch holds"
            )


def _static_shape(value: Any) -> tuple | None:
    try:
        return tuple(value.shape)
    except (AttributeError, TypeError, ValueError):  # A list, or a tensor whose rank is not known yet.
        return None


def as_losses_take_it(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a batch in the dtypes of the losses, with at least one row for boxes: no maximum over none can be taken."""
    # Where JAX computes without compiling, a batch has arrays of NumPy, and Keras wants either these alone or tensors alone.
    as_tensors = {
        name: value if name == "gt_outlines" else ops.convert_to_tensor(value) for name, value in batch.items()
    }
    batch = {name: ops.cast(value, DTYPES[name]) if name in DTYPES else value for name, value in as_tensors.items()}
    if batch["gt_labels"].shape[1] or "gt_outlines" in batch:
        return batch
    for name in EMPTY_ROW.keys() & batch.keys():
        rows = batch[name]
        row = ops.full((ops.shape(rows)[0], 1, *rows.shape[2:]), EMPTY_ROW[name], rows.dtype)
        batch[name] = ops.concatenate([rows, row], axis=1)
    return batch


def require_values(batch: Mapping[str, Any], num_classes: int) -> None:
    """Checks on the host what would train without an error and in vain: labels, boxes and sizes that can't be.

    Args:
        batch: one batch, or arrays of many images; what lacks an entry or has another shape is left to `require_shapes`.
        num_classes: of the detector.

    Raises:
        ValueError: naming the entry and a bad value.
    """
    if any(name not in batch for name in NEEDED):
        return
    arrays = {name: ops.convert_to_numpy(batch[name]) for name in (*NEEDED, "record_index") if name in batch}
    require_shapes(arrays)
    labels, boxes = arrays["gt_labels"], arrays["gt_boxes"]
    if (wrong := labels[(labels < -1) | (labels >= num_classes)]).size:
        raise ValueError(
            f"gt_labels must lie in 0..{num_classes - 1}, the classes of the detector, and be -1 in rows without a box, got {wrong[0]}: "
            "count labels from 0"
        )
    boxes = boxes[labels >= 0]
    is_box = np.isfinite(boxes).all(-1) & (boxes[:, 2:] >= boxes[:, :2]).all(-1)
    if not is_box.all():
        raise ValueError(
            f"gt_boxes must be finite (y1, x1, y2, x2) with y1 <= y2 and x1 <= x2, got {boxes[~is_box][0].tolist()}: "
            "kfpn.open_source reads other orders"
        )
    sizes, canvas = arrays["image_sizes"], arrays["images"].shape[1:3]
    sizes = sizes[arrays["record_index"] >= 0] if "record_index" in arrays else sizes
    if (bad := (sizes < 1).any(-1) | (sizes > canvas).any(-1)).any():
        raise ValueError(
            f"image_sizes must be (height, width) in 1..{canvas[0]} and 1..{canvas[1]}, the sides of the images, got "
            f"{sizes[bad][0].tolist()}"
        )
    _look_at_pixels(arrays["images"], boxes)


def _look_at_pixels(images: np.ndarray, boxes: np.ndarray) -> None:
    """Refuses pixels that are not finite, and warns of pixels and boxes that were brought to 0..1."""
    if np.issubdtype(images.dtype, np.floating) and images.size:
        largest = max(float(images.max()), -float(images.min()))
        if not np.isfinite(largest):
            raise ValueError(f"images must be finite, got {largest}")
        if 0.0 < largest < DARK:
            warnings.warn(
                f"images must have values of 0..255, got none beyond {largest:.3g}: kfpn normalizes them, so give them as they are",
                stacklevel=2,
            )
    if boxes.size and boxes.max() <= 1.0 and min(images.shape[1:3]) > 1:
        warnings.warn(
            "gt_boxes must be in pixels, got none beyond 1: multiply them by the sides of the image", stacklevel=2
        )


class CheckedBatches(keras.utils.PyDataset):
    """Checks each batch of another data set as it is made.

    Args:
        batches: the other data set.
        check: raises for a bad batch.
    """

    def __init__(self, batches: keras.utils.PyDataset, check: Check):
        super().__init__(batches.workers, batches.use_multiprocessing, batches.max_queue_size)
        self.batches, self.check = batches, check
        setattr(self, CHECKED, True)

    @property
    def num_batches(self) -> int | None:
        """The number of batches of an epoch."""
        return self.batches.num_batches

    def __getitem__(self, index: int) -> Any:
        """Returns a batch."""
        return _checked_element(self.batches[index], self.check)

    def on_epoch_begin(self) -> None:
        """Tells the other data set."""
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tells the other data set."""
        self.batches.on_epoch_end()


def checked_batches(data: Any, num_classes: int) -> Any:
    """Returns data for `fit`, whose batches are checked by `require_values` when they are made; those of `kfpn.dataset` need none.

    Args:
        data: arrays in a dict, which are checked now; a `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator. Other data are
            returned as they are.
        num_classes: of the detector.

    Raises:
        ValueError: as `require_values`.
    """
    check = partial(require_values, num_classes=num_classes)
    if hasattr(data, "class_names") or hasattr(data, CHECKED):
        return data
    if isinstance(data, Mapping):
        check(data)
    elif isinstance(data, keras.utils.PyDataset):
        return CheckedBatches(data, check)
    elif isinstance(data, GeneratorType):
        return _checked_generator(data, check)
    # A `tf.data.Dataset` is known by these names, because TensorFlow is not imported on other backends.
    elif type(data).__module__.startswith("tensorflow") and hasattr(data, "element_spec") and hasattr(data, "map"):
        return _checked_dataset(data, check)
    return data


def _batch_in(element: Any) -> Any:
    return element[0] if isinstance(element, tuple) and element else element


def _checked_element(element: Any, check: Check) -> Any:
    if isinstance(batch := _batch_in(element), Mapping):
        check(batch)
    return element


def _checked_generator(elements: Iterator[Any], check: Check) -> Iterator[Any]:
    for element in elements:
        checked = _checked_element(element, check)
        yield (checked,) if isinstance(checked, Mapping) else checked  # Keras wants tuples of a generator.


def _checked_dataset(data: Any, check: Check) -> Any:
    """Returns a `tf.data.Dataset` in which a function of the host looks at each batch, some batches ahead of the step."""
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def looked_at(*parts: Any) -> Any:
        element = parts[0] if len(parts) == 1 else parts
        batch = _batch_in(element)
        if not isinstance(batch, Mapping) or any(not isinstance(value, tf.Tensor) for value in batch.values()):
            return element
        names = [name for name in (*NEEDED, "record_index") if name in batch]

        def look(*values: np.ndarray) -> bool:
            check(dict(zip(names, values, strict=True)))
            return True

        done = tf.numpy_function(look, [batch[name] for name in names], tf.bool)
        with tf.control_dependencies([done]):
            return tf.nest.map_structure(tf.identity, element)

    checked = data.map(looked_at, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    setattr(checked, CHECKED, True)
    return checked
