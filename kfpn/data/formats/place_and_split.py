"""Takes the text of a data set's name apart, a place and a split behind a comma, and knows the words for splits."""

from pathlib import Path

SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Split -> the names that it has in files and folders, the usual one first."""
SPLIT_OF_WORD = {word: split for split, words in SPLITS.items() for word in words}
USUAL_WORDS = ", ".join(words[0] for words in SPLITS.values())
"""What messages list."""


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
