"""Reads image files: their size without decoding, whether they are whole, and their pixels as RGB."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from kfpn.data.record import Record

# A PNG without any of these bytes has no EXIF and no XMP block, so it has no rotation. Pillow would decode all of it to say so.
_PNG_MARKS = (b"eXIf", b"exif", b"adobe.xmp")


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
        whole: also check that no part of the file is missing. A JPEG is whole when it ends with its end marker, and of a
            PNG the checksums are read; only other files are decoded for it.

    Raises:
        ValueError: when it is no image, is damaged, or decodes to so many pixels that it may be an attack.
    """
    with _opened(image) as picture:
        orientation = _orientation(picture, image)
        width, height = picture.size if orientation < 5 else picture.size[::-1]
        header = Header(height, width, orientation)
        checksums = picture.format == "PNG"
        if whole and not checksums and not (picture.format in ("JPEG", "MPO") and _ends_as_jpeg(image)):
            picture.load()
    if whole and checksums:
        with _opened(image) as picture:  # verify() must be the first thing done with a picture
            picture.verify()
    return header


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

    EXIF rotation is applied; gray, palette and CMYK images become RGB; of 16 bits a channel the upper 8 are
    kept; alpha is dropped (the colours under it stay); of an animation the first frame is taken.

    Args:
        image: path of an image file, or its encoded bytes.
        name: what messages call it.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: when it cannot be decoded.
    """
    try:
        with _opened(image) as picture:
            return np.array(_to_rgb(ImageOps.exif_transpose(picture)))
    except ValueError as error:  # the message says what is wrong, but not with which file
        raise ValueError(f"{name}: {error}") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit gray, which convert("RGB") would clip at 255
        wide = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((np.clip(wide, 0, 65535) >> 8).astype(np.uint8))
    elif picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


@contextlib.contextmanager
def _opened(image: str | os.PathLike[str] | bytes) -> Iterator[Image.Image]:
    if not isinstance(image, bytes) and os.path.exists(image) and not os.path.isfile(image):
        raise ValueError("is not a file")  # opening a pipe would wait for ever
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as picture:
            yield picture
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"has more pixels than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} that are safe to decode"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError("is not an image, or of a kind that Pillow can't read") from error
    except FileNotFoundError as error:
        raise ValueError("does not exist") from error
    except Exception as error:  # on damaged files, the plugins of Pillow raise errors of many kinds
        raise ValueError(f"can't be read as an image ({type(error).__name__}: {error})") from error


def _orientation(picture: Image.Image, image: str | os.PathLike[str] | bytes) -> int:
    if picture.format == "PNG" and not any(mark in _content(image) for mark in _PNG_MARKS):
        return 1
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def _content(image: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    with open(image, "rb") as file:
        return file.read()


def _ends_as_jpeg(image: str | os.PathLike[str] | bytes) -> bool:
    if isinstance(image, bytes):
        end = image[-64:]
    else:
        with open(image, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
            end = file.read()
    return end.rstrip(b"\0\r\n").endswith(b"\xff\xd9")
