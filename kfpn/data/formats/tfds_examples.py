"""Gives the examples of a TFDS split in any order: their bytes, their images, their names."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import tensorflow_datasets as tfds


def data_source(builder: tfds.core.DatasetBuilder, split: str, name: str) -> Sequence[bytes]:
    """Returns the serialised examples of a split.

    Args:
        builder: prepared.
        split: of the data set.
        name: what messages call it.

    Raises:
        ValueError: when the split is not there, or empty.
    """
    try:
        known = builder.info.splits[split].num_examples
    except Exception as error:  # KeyError, ValueError or AssertionError, depending on how the split was misspelt
        raise ValueError(f"{name}: there is no split {split!r}; there are {', '.join(builder.info.splits)}") from error
    if not known:
        raise ValueError(f"{name}: the split must have at least one example, got none")
    return builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)


def as_bytes(image: Any) -> bytes:
    """Returns the bytes of an encoded image."""
    return image.item() if isinstance(image, np.ndarray) else bytes(image)


class EncodedImages(Sequence[bytes]):
    """Encoded images, read when asked for."""

    def __init__(self, example: Any, count: int) -> None:
        self._example, self._count = example, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: Any) -> Any:
        return as_bytes(self._example(index)["image"])


class ExampleNames(Sequence[str]):
    """Names of examples: the data set and the image's id."""

    def __init__(self, source: str, image_ids: np.ndarray) -> None:
        self._source, self._image_ids = source, image_ids

    def __len__(self) -> int:
        return len(self._image_ids)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: Any) -> Any:
        return f"{self._source} image {self._image_ids[index]}"
