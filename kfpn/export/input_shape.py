"""Parses the shape that an export is fixed to."""

from collections.abc import Sequence


def parse_input_shape(shape: str | Sequence[int]) -> tuple[int, int, int, int]:
    """Parses "1x800x1344x3" or four numbers: returns (batch, height, width, 3).

    Raises:
        ValueError: if `shape` is anything else.
    """
    numbers = tuple(shape.lower().split("x")) if isinstance(shape, str) else tuple(shape)
    try:
        whole = tuple(int(number) for number in numbers if not isinstance(number, bool))
    except ValueError:
        whole = ()
    if len(whole) != 4 or any(str(n) != str(number) for n, number in zip(whole, numbers, strict=True)):
        raise ValueError(f"input_shape must be BxHxWx3, four whole numbers as 1x800x1344x3, got {shape!r}")
    batch, height, width, channels = whole
    if channels != 3:
        raise ValueError(f"input_shape must end in 3, the channels R, G, B, got {shape!r}")
    if batch < 1 or min(height, width) < 64:
        raise ValueError(f"input_shape must have a batch of at least 1 and sides of at least 64 pixels, got {shape!r}")
    return batch, height, width, channels
