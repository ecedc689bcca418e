"""Turns what Pillow decodes into 8-bit RGB by stated rules, and refuses pixels that have no such rule."""

from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF's tags
_WHITE_IS_ZERO = 0
_NARROW = 8
"""16-bit images that use less than this part (one eighth) of their range are all but black: people are told."""


class UnreadablePixels(ValueError):
    """Tells that an image's pixels have no meaning that is known. The text says why, without the file's name."""


class SampleKind(NamedTuple):
    """Says what the samples of a file are.

    Attributes:
        bits: int, 16, or what a TIFF says, such as 12; 8 stands for 8 and less.
        white_is_zero: bool, whether the lowest value is white and Pillow leaves it so.
    """

    bits: int
    white_is_zero: bool


class RgbPixels(NamedTuple):
    """Holds an image's pixels, and what they were.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        bits: int, of a sample in the file: 8, or what more there is; the upper 8 are in `pixels`.
        highest: int, the highest sample in the file, as far as it is known from the upper 8 bits; 0 where `bits` is 8.
    """

    pixels: np.ndarray
    bits: int
    highest: int

    def is_narrow(self) -> bool:
        """Tells whether the samples have more than 8 bits and fill less than an eighth of their range."""
        return self.bits > 8 and self.highest < 2**self.bits // _NARROW


def sample_kind(picture: Image.Image, head: bytes) -> SampleKind:
    """Tells what the samples of an opened file are; nothing is decoded.

    Args:
        picture: as opened.
        head: the first bytes of the file; the 25th of a PNG gives its bits.
    """
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        declared = picture.tag_v2.get(_BITS_PER_SAMPLE, (8,))
        bits = min(16, max(declared) if isinstance(declared, tuple) else int(declared))
        # Pillow inverts such images of 8 bits itself.
        white_is_zero = picture.mode.startswith("I") and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return SampleKind(max(bits, 8), white_is_zero)
    if picture.format == "PNG" and len(head) > 24:
        return SampleKind(max(head[24], 8), False)
    return SampleKind(16 if picture.mode.startswith("I") else 8, False)


def require_pixels(picture: Image.Image) -> None:
    """Refuses an image whose pixels have no rule: floats, and colours that Pillow has no way to make RGB of.

    Raises:
        UnreadablePixels: naming the pixels' type, and of floats also their range.
    """
    if picture.mode == "F":
        low, high = _extremes(np.asarray(picture))
        raise UnreadablePixels(
            f"has float32 pixels in {low:g}..{high:g}: which of them is white can't be known, so convert it to 8 or 16 bits"
        )
    if picture.mode not in _MODES and not picture.mode.startswith("I"):
        raise UnreadablePixels(
            f"has pixels of the kind {picture.mode}, which can't be made RGB: convert it to 8-bit RGB"
        )


def to_rgb(picture: Image.Image, kind: SampleKind) -> RgbPixels:
    """Returns the pixels of a decoded image as 8-bit RGB.

    Gray, palette and CMYK become RGB; alpha is dropped (the colours under it stay); of more than 8 bits the upper 8 are kept.

    Args:
        picture: decoded, and upright.
        kind: of `sample_kind`, when it was opened.

    Raises:
        UnreadablePixels: as `require_pixels`, and for integers outside of 0..65535.
    """
    require_pixels(picture)
    if picture.mode.startswith("I"):
        return _from_integers(np.asarray(picture).astype(np.int64), kind)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    pixels, shift = np.array(picture.convert("RGB")), kind.bits - 8
    highest = (int(pixels.max(initial=0)) << shift) + (1 << shift) - 1 if shift else 0
    return RgbPixels(pixels, kind.bits, highest)


def _from_integers(values: np.ndarray, kind: SampleKind) -> RgbPixels:
    (low, high), white = _extremes(values), 2**kind.bits - 1
    if low < 0 or high > white:
        raise UnreadablePixels(
            f"has integer pixels in {low}..{high}: only 0..{white} can be read, so convert it to 8 or 16 bits"
        )
    upper = ((white - values if kind.white_is_zero else values) >> (kind.bits - 8)).astype(np.uint8)
    return RgbPixels(np.repeat(upper[:, :, None], 3, axis=2), kind.bits, int(high))


def _extremes(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (finite.min(), finite.max()) if finite.size else (0, 0)
