"""Reads image files: their size without decoding, whether they are whole, and their pixels as RGB."""

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from kfpn.data.decode_limits import TooCostly, may_have_too_many_scans, require_few_scans, require_pixels_at_most
from kfpn.data.image_endings import NO_PIXELS
from kfpn.data.jpeg_header import read_jpeg_header
from kfpn.data.mistaken_files import image_fault
from kfpn.data.pixel_values import RgbPixels, UnreadablePixels, sample_kind, to_rgb
from kfpn.data.record import Record

LOGGER = logging.getLogger("kfpn")
NARROW_SAID = threading.Event()
"""Is set once people were told of an image that is all but black."""

# A PNG without any of these bytes has no EXIF and no XMP block, so it has no rotation. Pillow would decode all of it to say so.
_PNG_MARKS = (b"eXIf", b"exif", b"adobe.xmp")
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")


class Header(NamedTuple):
    """Holds what is known of an image without decoding it.

    Attributes:
        height: int, pixels, after EXIF rotation.
        width: int, pixels, after EXIF rotation.
        orientation: int, EXIF orientation 1..8; from 5 on, the file's own rows are the image's columns.
    """

    height: int
    width: int
    orientation: int


class CheckedImage(NamedTuple):
    """Holds what was found when an image was checked.

    Attributes:
        header: of the image.
        bits: int, of a sample in the file; 8 stands for 8 and less.
        highest: int, the highest sample, where all of them lie in the lowest eighth of the range; else 0.
    """

    header: Header
    bits: int = 8
    highest: int = 0


def read_size(image: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """Returns height and width, in pixels, after EXIF rotation; nothing is decoded.

    Raises:
        ValueError: when `image` (a path or encoded bytes) cannot be read as an image.
    """
    header = read_header(image)
    return header.height, header.width


def read_header(image: str | os.PathLike[str] | bytes, *, whole: bool = False) -> Header:
    """Returns the size and the EXIF orientation of an image file.

    Args:
        image: path of an image file, or its encoded bytes.
        whole: also check the file as `check_image` does.

    Raises:
        ValueError: when it is no image, is damaged, or decodes to so many pixels that it may be an attack.
    """
    if whole:
        return check_image(image).header
    if header := _plain_jpeg(image, whole=False):
        return header
    with _opened(image) as picture:
        return _header(picture, image)


def check_image(image: str | os.PathLike[str] | bytes, *, decode: bool = False) -> CheckedImage:
    """Checks that no part of an image file is missing, and that its pixels can be read.

    A JPEG is whole when its end marker is there, and of a PNG the checksums are read; other files are decoded, and so are
    those whose pixels are floats or have more than 8 bits, because what they mean is seen only in their values.

    Args:
        image: path of an image file, or its encoded bytes.
        decode: decode every file.

    Raises:
        ValueError: when it is no image, is damaged, has pixels that can't be read, or decodes to so many pixels that it may
            be an attack.
    """
    if not decode and (plain := _plain_jpeg(image, whole=True)):
        return CheckedImage(plain)
    with _opened(image) as picture:
        header, kind = _header(picture, image), sample_kind(picture, _first_bytes(image))
        if decode or kind.bits > 8 or picture.mode not in _PLAIN_MODES:
            picture.load()
            rgb = to_rgb(picture, kind)
            return CheckedImage(header, rgb.bits, rgb.highest) if rgb.is_narrow() else CheckedImage(header)
        has_checksums = picture.format == "PNG"
        if not has_checksums:
            picture.load()
    if has_checksums:
        with _opened(image) as picture:  # verify() must be the first thing done with a picture
            picture.verify()
    return CheckedImage(header)


def load_image(record: Record) -> np.ndarray:
    """Returns a record's image, decoded as `load_picture` does.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: when the image cannot be decoded or is not of the record's size.
    """
    name = record.name or "image"
    pixels = record.image if isinstance(record.image, np.ndarray) else load_picture(record.image, name)
    if pixels.dtype != np.uint8 or pixels.shape != (record.height, record.width, 3):
        raise ValueError(
            f"{name}: pixels must be uint8 of shape ({record.height}, {record.width}, 3), "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )
    return pixels


def load_picture(image: str | os.PathLike[str] | bytes, name: str) -> np.ndarray:
    """Decodes an image file.

    EXIF rotation is applied; gray, palette and CMYK images become RGB; of more than 8 bits the upper 8 are kept; alpha is
    dropped (the colours under it stay); of an animation the first frame is taken. An image of more than 8 bits that is all
    but black, because its values lie in the lowest eighth of their range, is warned of: the first one in a process.

    Args:
        image: path of an image file, or its encoded bytes.
        name: what messages call it.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: when it cannot be decoded, or its pixels are floats or integers outside of 0..65535.
    """
    try:
        with _opened(image) as picture:
            _header(picture, image)
            kind = sample_kind(picture, _first_bytes(image))
            rgb = to_rgb(ImageOps.exif_transpose(picture), kind)
    except ValueError as error:  # the message says what is wrong, but not with which file
        raise ValueError(f"{name}: {error}") from error
    if rgb.is_narrow():
        _warn_of_narrow(name, rgb)
    return rgb.pixels


def narrow_range(bits: int, highest: int) -> str:
    """Says in words that an image's values fill only a small part of their range."""
    return f"values in 0..{highest} of 0..{2**bits - 1}: it is read as all but black, so scale it to the whole range"


def _warn_of_narrow(name: str, rgb: RgbPixels) -> None:
    if not NARROW_SAID.is_set():
        NARROW_SAID.set()
        LOGGER.warning("%s has %s (others like it are not named)", name, narrow_range(rgb.bits, rgb.highest))


@contextlib.contextmanager
def _opened(image: str | os.PathLike[str] | bytes) -> Iterator[Image.Image]:
    if not isinstance(image, bytes) and os.path.exists(image) and not os.path.isfile(image):
        raise ValueError("is not a file")  # opening a pipe would wait for ever
    try:
        # An open file, not its path: Pillow maps a path of an uncompressed TIFF into memory before it knows of its rotation.
        with (
            io.BytesIO(image) if isinstance(image, bytes) else open(image, "rb") as file,
            Image.open(file) as picture,
        ):
            yield picture
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"has more pixels than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} that are safe to decode"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(image_fault(image) or "is not an image, or of a kind that Pillow can't read") from error
    except FileNotFoundError as error:
        raise ValueError("does not exist") from error
    except (UnreadablePixels, TooCostly):
        raise
    except Exception as error:  # on damaged files, the plugins of Pillow raise errors of many kinds
        why = image_fault(image) or f"can't be read as an image ({type(error).__name__}: {error})"
        raise ValueError(why) from error


def _header(picture: Image.Image, image: str | os.PathLike[str] | bytes) -> Header:
    if picture.format in NO_PIXELS:
        raise UnreadablePixels(f"is {picture.format}, of which no pixels can be read: convert it to PNG or JPEG")
    require_pixels_at_most(*picture.size)
    if picture.format in ("JPEG", "MPO"):
        jpeg = read_jpeg_header(image)
        if jpeg is None or (jpeg.several_scans and may_have_too_many_scans(jpeg.height * jpeg.width, jpeg.length)):
            require_few_scans(*picture.size, lambda: _content(image))
    orientation = _rotation(picture, image)
    # Pillow gives the size of a TIFF as it is after the rotation.
    swapped = orientation >= 5 and picture.format != "TIFF"
    width, height = picture.size[::-1] if swapped else picture.size
    return Header(height, width, orientation)


def _plain_jpeg(image: str | os.PathLike[str] | bytes, *, whole: bool) -> Header | None:
    """Returns the header of a JPEG that needs no closer look; None for all else, faults included: Pillow names them."""
    try:
        jpeg = read_jpeg_header(image)
    except OSError:
        return None
    if jpeg is None or (whole and not jpeg.ends):
        return None
    if jpeg.several_scans and may_have_too_many_scans(jpeg.height * jpeg.width, jpeg.length):
        return None
    if Image.MAX_IMAGE_PIXELS and jpeg.height * jpeg.width > 2 * Image.MAX_IMAGE_PIXELS:
        return None
    sides = (jpeg.height, jpeg.width) if jpeg.orientation < 5 else (jpeg.width, jpeg.height)
    return Header(*sides, jpeg.orientation)


def _rotation(picture: Image.Image, image: str | os.PathLike[str] | bytes) -> int:
    if picture.format == "PNG" and not any(mark in _content(image) for mark in _PNG_MARKS):
        return 1
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def _first_bytes(image: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(image, bytes):
        return image[:32]
    with open(image, "rb") as file:
        return file.read(32)


def _content(image: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    with open(image, "rb") as file:
        return file.read()
