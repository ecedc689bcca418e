"""Opens image files with Pillow, and makes one line of all that goes wrong."""

import contextlib
import io
import os
from collections.abc import Iterator

from PIL import Image

from kfpn.data.decode_limits import TooCostly
from kfpn.data.mistaken_files import image_fault, unopened_fault
from kfpn.data.pixel_values import UnreadablePixels


@contextlib.contextmanager
def opened_picture(image: str | os.PathLike[str] | bytes) -> Iterator[Image.Image]:
    """Opens an image file, a path or encoded bytes, for the time of a block; its pixels are not decoded yet.

    Raises:
        ValueError: for what Pillow raises when the file is opened and within the block, without the file's name.
    """
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
        raise ValueError(unopened_fault(image)) from error
    except FileNotFoundError as error:
        raise ValueError("does not exist") from error
    except (UnreadablePixels, TooCostly):
        raise
    except Exception as error:  # on damaged files, the plugins of Pillow raise errors of many kinds
        why = image_fault(image) or f"can't be read as an image ({type(error).__name__}: {error})"
        raise ValueError(why) from error


def first_bytes(image: str | os.PathLike[str] | bytes) -> bytes:
    """Returns the first 32 bytes of an image file."""
    if isinstance(image, bytes):
        return image[:32]
    with open(image, "rb") as file:
        return file.read(32)


def file_content(image: str | os.PathLike[str] | bytes) -> bytes:
    """Returns all bytes of an image file."""
    if isinstance(image, bytes):
        return image
    with open(image, "rb") as file:
        return file.read()
