"""Finds a font that has the signs of a text: DejaVu Sans, or one of the machine's own for Chinese, Japanese, Korean and others."""

import functools
import logging
from pathlib import Path

from PIL import ImageFont

LOGGER = logging.getLogger("kfpn")
_WIDE_FONTS = ("cjk", "wqy", "droidsansfallback", "msyh", "simhei", "simsun", "pingfang", "hiragino", "yugoth", "msgothic", "ipag",
               "malgun", "nanum", "applegothic", "unifont", "arialuni", "notosans")  # fmt: skip
"""Parts of the file names of fonts that have many signs; they are looked at first, in this order."""


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Returns a font that has all signs of a text.

    Args:
        text: one line.
        size: pixels.

    Returns:
        DejaVu Sans where it has them, else a font of the machine; None where no font has them all.
    """
    signs = frozenset(sign for sign in text if not sign.isspace())
    path = _path_for(signs)
    return None if path is None else _font(path, size)


def plain_font(size: int) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans, which comes with matplotlib and has Greek, Cyrillic and signs that Pillow's own font lacks."""
    return _font(_dejavu(), size)


def drawable(name: str, instead: str) -> str:
    """Returns a name if there is a font that has its signs, else what stands for it, which is said once.

    Args:
        name: a class's.
        instead: what is drawn in its place, such as its number.
    """
    if font_for(name, 16) is not None:
        return name
    _warn_of_missing_font()
    return instead


@functools.cache
def _warn_of_missing_font() -> None:
    LOGGER.warning(
        "no font on this machine has the signs of some class names, so their numbers are drawn: install a font that has them, such "
        "as Noto Sans CJK (fonts-noto-cjk on Debian and Ubuntu)"
    )


@functools.cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@functools.cache
def _path_for(signs: frozenset[str]) -> str | None:
    wanted = {ord(sign) for sign in signs}
    return next((path for path in (_dejavu(), *_fonts_of_machine()) if wanted <= _codes(path)), None)


@functools.cache
def _dejavu() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _fonts_of_machine() -> tuple[str, ...]:
    from matplotlib import font_manager

    def rank(path: str) -> tuple[int, str]:
        name = Path(path).name.lower()
        return next((i for i, part in enumerate(_WIDE_FONTS) if part in name), len(_WIDE_FONTS)), path

    # LastResort has a sign for every letter, but each of them is a square.
    return tuple(sorted((path for path in font_manager.findSystemFonts() if "LastResort" not in path), key=rank))


@functools.cache
def _codes(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # bitmap fonts and damaged files
        return frozenset()
