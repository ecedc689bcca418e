"""Finds the image files that annotations name, and says what was taken for what."""

import os
from collections.abc import Sequence
from pathlib import Path

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.folder_index import FolderIndex, readings, spelt_alike
from kfpn.data.image_checks import progress

SPELT = "file names that are spelt otherwise on this machine (separators, case, accents, %20), taken"
BY_LAST_PART = "file names with the folders of another machine or without their folder, found by their last part"


class ImageFiles:
    """Finds the files that the annotations of a folder of images name.

    A name is the file of that path below the folder. Where there is none it is read as another machine may have written it,
    see `readings`. A file in another folder than the name says is taken only where the name's folders are not of this
    machine, or where the folders that both have agree, and the name's folder is not there or no name of the data set is a file.

    Args:
        folder: of the images.
        faults: counts the names that were read otherwise; its `source` is what messages call the data set.
        advice: how to name another folder, for messages.
    """

    def __init__(self, folder: Path, faults: AnnotationFaults, advice: str) -> None:
        self._folder, self._faults, self._advice = folder, faults, advice
        self._root = os.path.abspath(folder)
        self._prefix = str(folder / "x")[:-1]  # what `str(folder / name)` puts before a name
        self.index: FolderIndex | None = None

    def find(self, names: Sequence[str]) -> list[str | None]:
        """Returns a path for each name, None where there is no file.

        Raises:
            ValueError: naming both, when two files fit a name or two names one file; when a name leaves the folder and no file
                in it has its last part.
        """
        files: list[str | None] = [self._as_written(name) for name in names]
        missing = [i for i, file in enumerate(files) if file is None]
        if not missing:
            return files
        self.index = FolderIndex(self._folder)
        elsewhere = []
        for i in progress(missing, len(missing), f"looking for the images of {self._faults.source}"):
            match = self.index.find(names[i])
            if match.files and match.place:
                files[i] = self._only(names[i], match.files)
                self._faults.add(SPELT, f"{names[i].strip()[:200]} is {files[i]}")
            elif match.files:
                elsewhere.append((i, match))
        none_there = not any(files)
        for i, match in elsewhere:
            if self._is_foreign(names[i]) or (
                (none_there or self._folder_is_missing(names[i])) and _folders_agree(names[i], match.files)
            ):
                files[i] = self._only(names[i], match.files)
                self._faults.add(BY_LAST_PART, f"{names[i].strip()[:200]} is {files[i]}")
        for i in missing:
            if files[i] is None and self._leaves(names[i]):
                raise ValueError(
                    f"{self._faults.source}: images[{i}] must lie in the folder of images, {self._folder}, got "
                    f"{names[i][:200]!r}; if that is meant, name a folder above all images: {self._advice}"
                )
        self._require_one_name_each(names, files, set(missing))
        return files

    def _as_written(self, name: str) -> str | None:
        if name.isascii() and name.replace(".", "").replace("_", "").isalnum():  # no folder in it: quickly
            path = self._prefix + name
            return path if os.path.isfile(path) else None
        path = str(self._folder / name)
        if os.path.isfile(path) and not self._leaves(name):
            return path
        return None

    def _leaves(self, name: str) -> bool:
        path = os.path.abspath(os.path.join(self._root, name))
        return path != self._root and not path.startswith(self._root.rstrip(os.sep) + os.sep)

    def _is_foreign(self, name: str) -> bool:
        """Returns whether the folders of a name are not of this machine: they say nothing of the folders here."""
        return self._leaves(name) or "\\" in name or "://" in name or "?d=" in name or ":" in name[:2]

    def _folder_is_missing(self, name: str) -> bool:
        parts = readings(name)[0]
        return len(parts) > 1 and not (self._folder / parts[0]).is_dir()

    def _only(self, name: str, files: Sequence[tuple[str, ...]]) -> str:
        index = self.index
        if index is None or len(files) != 1:
            fits = " and ".join("/".join(parts) for parts in files[:2])
            raise ValueError(
                f"{self._faults.source}: file name {name[:200]!r} must fit one file in {self._folder}, got {fits}: write the folder "
                f"into it, or name the folder of the images: {self._advice}"
            )
        return index.path(files[0])

    def _require_one_name_each(self, names: Sequence[str], files: Sequence[str | None], changed: set[int]) -> None:
        """Refuses two names for one file, where at least one of them is not its own."""
        owner: dict[str, int] = {}
        for i in (*(i for i in range(len(names)) if i not in changed), *sorted(changed)):
            file = files[i]
            if file is None:
                continue
            first = owner.setdefault(os.path.abspath(file), i)
            if i in changed and names[first] != names[i]:
                raise ValueError(
                    f"{self._faults.source}: file names must stand for different files, got {names[first][:200]!r} and "
                    f"{names[i][:200]!r}, which both fit {file}: copy the missing one to the folder"
                )


def _folders_agree(name: str, files: Sequence[tuple[str, ...]]) -> bool:
    """Returns whether all files lie where a name says, but that one of both paths begins further up.

    `train/im0.jpg` and `im0.jpg` agree, and so do `im0.jpg` and `photos/im0.jpg`. `val/im0.jpg` is not `train/im0.jpg`.
    """
    folders = {parts[:-1] for parts in readings(name)}
    return all(any(_ends_alike(own, parts[:-1]) for own in folders) for parts in files)


def _ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return all(spelt_alike(a, b) for a, b in zip(reversed(one), reversed(other), strict=False))
