"""Reads small text files of data sets: lists, labels and tables."""

import re
from pathlib import Path

from kfpn.data.encodings import decode_text
from kfpn.data.mistaken_files import HEAD, mistaken_for

_SEVERAL_LINES = re.compile(r"\r\n|\r|\n")


def read_text(path: str | Path, advice: str = "") -> str:
    """Returns the text of a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        path: of the file.
        advice: what to do where it is in another encoding, for the message.

    Raises:
        ValueError: when it can't be read, is in another encoding, or is a pointer, a web page or an archive; names the file.
    """
    try:
        content = Path(path).read_bytes()
        # A label of class 404 is no message of a server, and an empty file of labels is an image without objects.
        mistaken = mistaken_for(content[:HEAD]) if content.strip() and not content[:1].isdigit() else None
        if mistaken:
            raise ValueError(f"{path}: {mistaken}")
        return decode_text(content)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}: is not text in UTF-8, UTF-16 or UTF-32 (line {line}){': ' if advice else ''}{advice}"
        ) from error
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from error


def lines_of(text: str) -> list[str]:
    """Returns the lines of a text, by the line ends of any system."""
    return _SEVERAL_LINES.split(text)
