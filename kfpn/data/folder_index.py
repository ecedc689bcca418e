"""Finds files by names that were written on another machine."""

import difflib
import heapq
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

Parts = tuple[str, ...]

_LONGEST_PATH = 4096  # characters
_MOST_FILES = 1_000_000  # a folder that holds more is not the folder of images
_MOST_LOOKED_AT, _MOST_COMPARED, _LONGEST_COMPARED = 20_000, 40, 100
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://[^/?#]*([^?#]*)")
_LOCAL_FILE = re.compile(r".*[?&]d=([^&#]+)")  # Label Studio: /data/local-files/?d=images/im0.jpg
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts a part of a random id before the name of an upload
_UPLOADED_SHORT = re.compile(r"[0-9a-f]{4,8}-(.+)")
_DRIVE = re.compile(r"/?[A-Za-z]:(?=[\\/])")


def readings(name: str) -> list[Parts]:
    """Returns the ways to read a path that another machine wrote, the most literal first.

    Backslashes separate folders, drives and hosts are dropped, %20 is a space, and signs that nobody sees are left out, as those
    that Windows puts before a copied path.

    Args:
        name: path or address, as the annotations have it.

    Returns:
        Each reading as its folders and the file's name; `..` stays in it.
    """
    name = name.strip()
    if len(name) > _LONGEST_PATH:
        return []
    texts = [name]
    for pattern in (_URL, _LOCAL_FILE):
        if match := pattern.match(name):
            texts.append(match[1])
    texts += [decoded for text in list(texts) if (decoded := unquote(text)) != text]
    texts += [seen for text in list(texts) if (seen := _without_unseen(text)) != text]
    return list(dict.fromkeys(parts for text in texts if (parts := _split(text)) and parts[-1] != ".."))


def _without_unseen(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign for sign in text if unicodedata.category(sign) not in ("Cf", "Cc")).strip()


def _split(text: str) -> Parts:
    drive = _DRIVE.match(text)
    path = text[drive.end() :] if drive else text
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def _before_upload(parts: Parts) -> Parts | None:
    """Returns the name that a file had before Label Studio's upload put a part of a random id before it, or None."""
    pattern = _UPLOADED_SHORT if "upload" in parts[:-1] else _UPLOADED
    match = pattern.fullmatch(parts[-1])
    return (*parts[:-1], match[1]) if match else None


def is_hidden(name: str) -> bool:
    """Returns whether systems hide a file or folder: `.DS_Store`, macOS's `._im0.jpg`."""
    return name.startswith(".")


def plain_spelling(text: str) -> str:
    """Returns a key of a file's name in which case and the form of accents do not matter."""
    # Accents are sorted in a time that grows with the square of their number.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text[:_LONGEST_PATH]).casefold())


def spelt_alike(one: str, other: str) -> bool:
    """Returns whether two names are the same but for case and the form of accents."""
    return plain_spelling(one) == plain_spelling(other)


@dataclass(frozen=True)
class Match:
    """Says which file a name stands for.

    Attributes:
        files: paths below the folder, as parts; one where the name is clear, several where they fit alike, none.
        place: bool, whether folders and name are all the same but for case and the form of accents.
    """

    files: tuple[Parts, ...] = ()
    place: bool = False


class FolderIndex:
    """Knows the files below a folder, hidden ones left out.

    Args:
        folder: is read once, with the folders in it.
        endings: of the files that count, in small letters; None: all files.
        deep: whether the folders in it count.
    """

    def __init__(self, folder: str | Path, endings: Collection[str] | None = None, *, deep: bool = True) -> None:
        self.folder = Path(folder)
        self.by_name: dict[str, SameName] = {}
        self.by_stem: dict[str, SameName] = {}
        self.count = 0
        for parts in _files_below(str(folder), deep):
            if endings is None or Path(parts[-1]).suffix.lower() in endings:
                self.count += 1
                self.by_name.setdefault(plain_spelling(parts[-1]), SameName()).files.append(parts)
                self.by_stem.setdefault(plain_spelling(_stem(parts[-1])), SameName()).files.append(parts)

    def path(self, parts: Parts) -> str:
        """Returns the path of a file."""
        return str(self.folder.joinpath(*parts))

    def find(self, name: str) -> Match:
        """Returns the file that a name of another machine stands for.

        Of the files with the same last part the one counts that shares the most folders with the name, and of these the one
        that is spelt as it; case and the form of accents do not matter otherwise.

        Args:
            name: as the annotations have it.
        """
        known = readings(name)
        for parts in known:
            if rivals := self.by_name.get(plain_spelling(parts[-1])):
                return rivals.closest(parts, _same)
        for parts in filter(None, map(_before_upload, known)):
            if rivals := self.by_name.get(plain_spelling(parts[-1])):
                return Match(rivals.closest(parts, _same).files)
        return Match()

    def find_stem(self, parts: Parts) -> Match:
        """Returns the files that a path without ending stands for, as `find`; several where their endings differ.

        Args:
            parts: folders, and the file's name without its ending.
        """
        rivals = self.by_stem.get(plain_spelling(parts[-1]))
        return rivals.closest(parts, _stem) if rivals else Match()

    def nearest(self, name: str) -> str | None:
        """Returns the path below the folder of the file that is most like one that is not there, or None.

        Files of the same name and another ending come first; of several two are shown.
        """
        for parts in readings(name):
            if rivals := self.by_stem.get(plain_spelling(_stem(parts[-1]))) or self.by_stem.get(
                plain_spelling(parts[-1])
            ):
                return " and ".join("/".join(rival) for rival in rivals.files[:2])
        last = plain_spelling(next(iter(readings(name)), ("",))[-1])[:_LONGEST_COMPARED]
        # Comparing takes a time that grows with the square of the length: few names are compared, those with the most ends in common.
        short = (other for other in self.by_name if len(other) <= _LONGEST_COMPARED)
        known = heapq.nlargest(
            _MOST_COMPARED, itertools.islice(short, _MOST_LOOKED_AT), key=lambda other: _common_ends(last, other)
        )
        near = difflib.get_close_matches(last, known, n=1, cutoff=0.75)
        return "/".join(self.by_name[near[0]].files[0]) if near else None


def _stem(name: str) -> str:
    return Path(name).stem


def _same(name: str) -> str:
    return name


def _common_ends(one: str, other: str) -> int:
    return _common_start(one, other) + _common_start(one[::-1], other[::-1])


def _common_start(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass
class SameName:
    """Holds the files whose paths end in the same parts. Groups of those that share one part more are made when they are asked for.

    Attributes:
        files: paths below the folder, as parts.
        shared: how many parts, from the last one on, they all share.
    """

    files: list[Parts] = field(default_factory=list)
    shared: int = 1
    _narrower: dict[str, "SameName"] | None = None
    _known: dict[tuple[bool, str], Match] = field(default_factory=dict)

    def closest(self, parts: Parts, last_part: Callable[[str], str]) -> Match:
        """Returns the files that share the most parts with a path and, of these, are spelt as it; all of them where they fit alike.

        Args:
            parts: a path whose last parts are those that the files share.
            last_part: gives what is compared of a file's name: the name itself or its stem.
        """
        group = self
        while group.shared < len(parts) and (inner := group._inner().get(plain_spelling(parts[-1 - group.shared]))):
            group = inner
        key = (group.shared == len(parts), parts[-1])
        if key not in group._known:
            group._known[key] = group._best(*key, last_part)
        return group._known[key]

    def _inner(self) -> dict[str, "SameName"]:
        if self._narrower is None:
            self._narrower = {}
            for file in self.files:
                if len(file) > self.shared:
                    one = self._narrower.setdefault(
                        plain_spelling(file[-1 - self.shared]), SameName(shared=self.shared + 1)
                    )
                    one.files.append(file)
        return self._narrower

    def _best(self, whole: bool, name: str, last_part: Callable[[str], str]) -> Match:
        def rank(file: Parts) -> tuple[bool, int]:
            own = last_part(file[-1])
            literal = 2 if own == name else 1 if _composed(own) == _composed(name) else 0
            return whole and len(file) == self.shared, literal

        best = max(map(rank, self.files))
        return Match(tuple(file for file in self.files if rank(file) == best), best[0])


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text[:_LONGEST_PATH])


def _files_below(folder: str, deep: bool) -> list[Parts]:
    """Returns the paths below a folder, sorted; what can't be read is passed over, and no folder is read twice."""
    files: list[Parts] = []
    seen: set[str] = set()
    waiting: list[Parts] = [()]
    while waiting and len(files) < _MOST_FILES:
        inner = waiting.pop()
        path = os.path.join(folder, *inner)
        if (real := os.path.realpath(path)) in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if is_hidden(entry.name) or entry.name == "__MACOSX":
                        continue
                    if entry.is_dir():
                        waiting += [(*inner, entry.name)] if deep else []
                    elif entry.is_file():
                        files.append((*inner, entry.name))
        except OSError:
            continue
    return sorted(files)
