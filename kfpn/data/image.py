"""Reads image files: their size without decoding, whether they are whole, and their pixels as RGB."""

import logging
import os
import threading
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from kfpn.data.decode_limits import may_have_too_many_scans, require_few_scans, require_pixels_at_most
from kfpn.data.image_endings import NO_PIXELS
from kfpn.data.image_part import ImagePart
from kfpn.data.jpeg_fraction import DecodedImage, SizeRule, draft_plain, picture_box, whole_image
from kfpn.data.jpeg_header import JpegHeader, read_jpeg_header
from kfpn.data.opened_picture import file_content, first_bytes, opened_picture
from kfpn.data.pixel_values import RgbPixels, UnreadablePixels, sample_kind, to_rgb
from kfpn.data.png_rows import lacks_rows, may_lack_rows
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
    with opened_picture(image) as picture:
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
    plain = _plain_jpeg(image, whole=True)
    if plain and not decode:
        return CheckedImage(plain)
    with opened_picture(image) as picture:
        header, kind = _header(picture, image), sample_kind(picture, first_bytes(image))
        if decode or kind.bits > 8 or picture.mode not in _PLAIN_MODES:
            _load(picture, image)
            rgb = to_rgb(picture, kind)
            return CheckedImage(header, rgb.bits, rgb.highest) if rgb.is_narrow() else CheckedImage(header)
        has_checksums = picture.format == "PNG"
        if not has_checksums:
            picture.load()
    if has_checksums:
        with opened_picture(image) as picture:  # verify() must be the first thing done with a picture
            picture.verify()
    return CheckedImage(header)


def load_image(record: Record) -> np.ndarray:
    """Returns a record's whole image, (H, W, 3) uint8 RGB, decoded as `load_picture` does.

    Raises:
        ValueError: when the image cannot be decoded or is not of the record's size.
    """
    return decode_record(record).pixels


def decode_record(record: Record, needed: SizeRule | None = None) -> DecodedImage:
    """Returns a record's image, decoded as `decode_picture` does.

    Raises:
        ValueError: when the image cannot be decoded or is not of the record's size.
    """
    if isinstance(record.image, ImagePart):
        return whole_image(record.image.pixels())
    if isinstance(record.image, np.ndarray):
        _require_shape(record, record.image.dtype, record.image.shape)
        return whole_image(record.image)
    image = decode_picture(record.image, record.name or "image", needed)
    _require_shape(record, image.pixels.dtype, (*image.size, 3))
    return image


def _require_shape(record: Record, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype != np.uint8 or shape != (record.height, record.width, 3):
        raise ValueError(
            f"{record.name or 'image'}: pixels must be uint8 of shape ({record.height}, {record.width}, 3), "
            f"got {dtype} of shape {shape}"
        )


def load_picture(image: str | os.PathLike[str] | bytes, name: str | None = None) -> np.ndarray:
    """Decodes an image file.

    EXIF rotation is applied; gray, palette and CMYK images become RGB; of more than 8 bits the upper 8 are kept; alpha is
    dropped (the colours under it stay); of an animation the first frame is taken. An image of more than 8 bits that is all
    but black, because its values lie in the lowest eighth of their range, is warned of: the first one in a process.

    Args:
        image: path of an image file, or its encoded bytes.
        name: what messages call it; None: its path, or "the image" where it is bytes.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: when it cannot be decoded, or its pixels are floats or integers outside of 0..65535.
    """
    if name is None:
        name = "the image" if isinstance(image, bytes) else os.fspath(image)
    return decode_picture(image, name).pixels


def decode_picture(image: str | os.PathLike[str] | bytes, name: str, needed: SizeRule | None = None) -> DecodedImage:
    """Decodes an image file as `load_picture` does, a large JPEG at the fraction that `decoding_fraction` gives.

    Args:
        image: path of an image file, or its encoded bytes.
        name: what messages call it.
        needed: gives the largest size that will be made of the image; None: decode it whole.

    Raises:
        ValueError: as `load_picture`.
    """
    try:
        _plain_jpeg(image, whole=True)
        with opened_picture(image) as picture:
            header = _header(picture, image)
            kind = sample_kind(picture, first_bytes(image))
            fraction = draft_plain(picture, needed((header.height, header.width)), header.orientation) if needed else 1
            _load(picture, image)
            rgb = to_rgb(ImageOps.exif_transpose(picture), kind)
    except ValueError as error:  # the message says what is wrong, but not with which file
        raise ValueError(f"{name}: {error}") from error
    if rgb.is_narrow():
        _warn_of_narrow(name, rgb)
    if fraction == 1:
        return whole_image(rgb.pixels)
    size = header.height, header.width
    return DecodedImage(rgb.pixels, size, picture_box(size, fraction, header.orientation))


def narrow_range(bits: int, highest: int) -> str:
    """Says in words that an image's values fill only a small part of their range."""
    return f"values in 0..{highest} of 0..{2**bits - 1}: it is read as all but black, so scale it to the whole range"


def _warn_of_narrow(name: str, rgb: RgbPixels) -> None:
    if not NARROW_SAID.is_set():
        NARROW_SAID.set()
        LOGGER.warning("%s has %s (others like it are not named)", name, narrow_range(rgb.bits, rgb.highest))


def _load(picture: Image.Image, image: str | os.PathLike[str] | bytes) -> None:
    """Decodes an opened picture.

    Raises:
        UnreadablePixels: for a PNG that lacks rows, which Pillow shows as black without a word.
    """
    picture.load()
    if picture.format == "PNG" and may_lack_rows(picture) and lacks_rows(file_content(image)):
        raise UnreadablePixels("is a PNG whose last rows are missing: copy it anew from where it came from")


def _header(picture: Image.Image, image: str | os.PathLike[str] | bytes) -> Header:
    if picture.format in NO_PIXELS:
        raise UnreadablePixels(f"is {picture.format}, of which no pixels can be read: convert it to PNG or JPEG")
    require_pixels_at_most(*picture.size)
    if picture.format in ("JPEG", "MPO"):
        jpeg = read_jpeg_header(image)
        if jpeg is None or _may_take_minutes(jpeg):
            require_few_scans(*picture.size, lambda: file_content(image))
    orientation = _rotation(picture, image)
    # Pillow gives the size of a TIFF as it is after the rotation.
    swapped = orientation >= 5 and picture.format != "TIFF"
    width, height = picture.size[::-1] if swapped else picture.size
    return Header(height, width, orientation)


def _plain_jpeg(image: str | os.PathLike[str] | bytes, *, whole: bool) -> Header | None:
    """Returns the header of a JPEG that needs no closer look; None for all else: Pillow names other faults.

    Raises:
        UnreadablePixels: with `whole`, where the picture is missing, of which Pillow makes gray without a word.
    """
    try:
        jpeg = read_jpeg_header(image)
    except OSError:
        return None
    if jpeg is None or (whole and not jpeg.ends) or _may_take_minutes(jpeg):
        return None
    if whole and not jpeg.filled:
        raise UnreadablePixels(
            "is a JPEG of headers without the picture behind them: copy it anew from where it came from"
        )
    if Image.MAX_IMAGE_PIXELS and jpeg.height * jpeg.width > 2 * Image.MAX_IMAGE_PIXELS:
        return None
    sides = (jpeg.height, jpeg.width) if jpeg.orientation < 5 else (jpeg.width, jpeg.height)
    return Header(*sides, jpeg.orientation)


def _may_take_minutes(jpeg: JpegHeader) -> bool:
    """Tells whether a JPEG may have more scans than are decoded, so that they must be counted."""
    return jpeg.several_scans and may_have_too_many_scans(jpeg.height * jpeg.width, jpeg.length)


def _rotation(picture: Image.Image, image: str | os.PathLike[str] | bytes) -> int:
    if picture.format == "PNG" and not any(mark in file_content(image) for mark in _PNG_MARKS):
        return 1
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1
