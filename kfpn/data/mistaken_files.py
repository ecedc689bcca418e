"""Says what a file is instead of the annotations or the image that it is called: a pointer, a web page, an archive, nothing."""

import os
import re
from pathlib import Path

from kfpn.data.file_kinds import ARCHIVES, IMAGES
from kfpn.data.png_rows import png_chunks

HEAD = 512
"""Bytes from a file's beginning that are looked at."""
_PAGE = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_SERVER_ERROR = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<error>|\s*(404|403|429|500|503)\b[^{\[]{0,80}$", re.IGNORECASE)


def mistaken_for(head: bytes) -> str | None:
    """Returns what a file is that is neither annotations nor an image, and what to do; None: it is not known.

    Args:
        head: the first `HEAD` bytes of a file, or all of a smaller one.
    """
    text = head.removeprefix(b"\xef\xbb\xbf")
    if not head:
        return "is empty (0 bytes): copy or download it again"
    if text.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file itself: run `git lfs pull` where it came from"
    if b"annex/objects/" in text[:200] and len(text) < HEAD:
        return "is a git-annex pointer, not the file itself: run `git annex get` where it came from"
    if _PAGE.match(text):
        return "is a web page, perhaps of a failed download: download the file itself"
    if _SERVER_ERROR.match(text):
        return "is a server's error message, perhaps of a failed download: download the file itself"
    for offset, start, what in ARCHIVES:
        if head.startswith(start, offset):
            return f"is {what}: unpack it first"
    if len(head) >= 16 and not any(head):
        return "begins with zeros only, perhaps of a copy or download that was not finished: copy or download it again"
    return None


def image_fault(image: str | os.PathLike[str] | bytes) -> str | None:
    """Returns what is wrong with a file that could not be read as an image; None: it is not known."""
    content = image[:HEAD] if isinstance(image, bytes) else _first_part(image)
    if content is None:
        return None
    if mistaken := mistaken_for(content):
        return mistaken
    if content.startswith(IMAGES["PNG"]):
        whole = image if isinstance(image, bytes) else Path(image).read_bytes()
        has_pixels = any(kind == b"IDAT" for kind, _ in png_chunks(whole))
        return None if has_pixels else "is a PNG without pixels (it has no IDAT chunk): save it anew"
    text = content.decode("utf-8", "ignore").strip()
    if text and text.isprintable() and text.isascii() and len(text) > len(content) - 8:
        return f"is not an image: it is text that begins with {text[:30]!r}"
    return None


def unopened_fault(image: str | os.PathLike[str] | bytes) -> str:
    """Returns what is wrong with a file that no plugin of Pillow takes as its own."""
    content = (image[:HEAD] if isinstance(image, bytes) else _first_part(image)) or b""
    if mistaken := image_fault(image):
        return mistaken
    for kind, start in IMAGES.items():
        if content.startswith(start):
            return f"begins as a {kind} file, but is damaged or of a form that Pillow can't read: copy it anew, or save it anew as PNG or JPEG"
    return "is not an image, or of a kind that Pillow can't read"


def _first_part(path: str | os.PathLike[str]) -> bytes | None:
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError:
        return None
