"""Takes the text of a data set's name apart: a place, and a split behind a comma."""

from pathlib import Path


def place_and_split(text: str, split: str) -> tuple[str, str]:
    """Returns the place and the split that a text names.

    Args:
        text: PLACE or PLACE,SPLIT. A folder or file that exists is a place, whatever commas its name has.
        split: the split where the text names none.
    """
    if Path(text).expanduser().exists():
        return text, split
    place, comma, named = text.rpartition(",")
    return (place, named or split) if comma and place else (text, split)
