"""Keeps limits on what an image may cost to decode, by what its header says."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

MOST_PIXELS = 178_956_970
"""Most pixels of an image. It is twice Pillow's own `MAX_IMAGE_PIXELS`, from where on Pillow refuses images too."""
SCANS = 100
"""A JPEG of the most pixels may have so many scans, a smaller one more. Each scan takes time for all of the pixels."""
_SHORTEST_SCAN = 12  # bytes: the header of a scan is not shorter

_LIMIT: ContextVar[int] = ContextVar("max_pixels", default=MOST_PIXELS)


class TooCostly(ValueError):
    """Tells that an image is beyond a limit. The text says which, without the file's name."""


def scan_limit(max_pixels: int) -> int:
    """Returns how many pixels all scans of a JPEG may have together; a served model keeps the same limit.

    Args:
        max_pixels: most pixels of an image.
    """
    return SCANS * max_pixels


def require_max_pixels(max_pixels: int) -> None:
    """Refuses a limit on the pixels of an image that is not in 1..2147483647.

    Raises:
        ValueError: naming the range.
    """
    if not 1 <= max_pixels < 2**31:
        raise ValueError(f"max_pixels must lie in 1..2147483647, got {max_pixels}")


@contextlib.contextmanager
def decoding_at_most(max_pixels: int) -> Iterator[None]:
    """Sets the most pixels of an image in this thread.

    Args:
        max_pixels: 1..2147483647.

    Raises:
        ValueError: when it is out of range.
    """
    require_max_pixels(max_pixels)
    from PIL import Image  # here, so that the command line can name the limits without it

    own, token = Image.MAX_IMAGE_PIXELS, _LIMIT.set(max_pixels)
    if own is not None and max_pixels > 2 * own:
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    try:
        yield
    finally:
        _LIMIT.reset(token)
        Image.MAX_IMAGE_PIXELS = own


def require_pixels_at_most(width: int, height: int) -> None:
    """Refuses an image of too many pixels.

    Raises:
        TooCostly: naming its size and the limit.
    """
    from PIL import Image

    limit = _LIMIT.get()
    if width * height > limit and not (limit == MOST_PIXELS and Image.MAX_IMAGE_PIXELS is None):
        raise TooCostly(
            f"is {width} x {height}, which are more pixels than the {limit:,} that are decoded: make it smaller, or predict with a larger "
            "--max-pixels"
        )


def may_have_too_many_scans(pixels: int, length: int) -> bool:
    """Returns whether a JPEG with several scans is long enough to hold more of them than are decoded.

    Args:
        pixels: of the image.
        length: of the file, in bytes.
    """
    return pixels * (length // _SHORTEST_SCAN + 1) > scan_limit(_LIMIT.get())


def require_few_scans(width: int, height: int, content: Callable[[], bytes]) -> None:
    """Refuses a JPEG with several scans that would take minutes.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        content: returns the file's bytes.

    Raises:
        TooCostly: naming the number of scans and the limit.
    """
    limit = scan_limit(_LIMIT.get())
    scans = content().count(b"\xff\xda")
    if width * height * scans > limit:
        raise TooCostly(
            f"has {scans:,} scans of {width} x {height}, together more than the {limit:,} pixels that are decoded: save it anew, as a JPEG of "
            "one scan"
        )
