"""Finds the image files that a user names, reads them, and names the pictures that are made of them."""

import glob
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from kfpn.config.checks import require_local
from kfpn.config.run import InputConfig
from kfpn.data.augment import size_rule
from kfpn.data.image import decode_picture
from kfpn.data.image_endings import image_endings, images_among, is_image_name
from kfpn.data.jpeg_fraction import DecodedImage
from kfpn.inference.video_reader import is_video_name

LOGGER = logging.getLogger("kfpn")


def readable_images(
    paths: Sequence[Path], task: str, failed: list[Path], rule: InputConfig
) -> Iterator[tuple[int, Path, DecodedImage]]:
    """Yields the images that can be read, with a bar of progress; the others are named on stderr.

    Args:
        paths: image files.
        task: str, what the bar says.
        failed: takes the paths that cannot be read.
        rule: makes the largest image of each, see `decode_picture`.

    Yields:
        The number of the path, counted from 1, the path, and the image.
    """
    for number, path in enumerate(tqdm(paths, desc=task, unit="image", leave=False), start=1):
        try:
            image = decode_picture(path, str(path), size_rule(rule))
        except ValueError as error:
            failed.append(path)
            tqdm.write(f"kfpn: error: {error}", file=sys.stderr)
        else:
            yield number, path, image


def find_images(names: Sequence[str], videos: bool = False) -> list[Path]:
    """Returns the image files that names, folders and patterns stand for, in order, each once.

    A name that does not exist is returned as it is, so that it is reported with the images that can't be read. Of a folder
    and of a pattern, files that are no images by their ending, hidden files and folders are passed over, which is said in one line.

    Args:
        names: as a user gives them.
        videos: take the videos of a folder or of a pattern that has no images.

    Raises:
        ValueError: if a folder holds no image, a pattern matches folders alone, or a name is an address (`https://...`).
    """
    paths: list[Path] = []
    for name in names:
        require_local("images", name)
        path = Path(name)
        if os.path.isdir(name):  # that of `Path` raises an error for a name that is too long
            paths += _named_images(name, path.iterdir(), videos)
        elif os.path.lexists(name) or not (matches := sorted(glob.glob(name))):
            # A name that exists is not a pattern: a file may be called a[1].jpg. A link may lead nowhere.
            paths.append(path)
        else:
            files = [file for match in matches if (file := Path(match)).is_file()]
            if not files:
                raise ValueError(
                    f"{name} must be a pattern of files, got folders alone: name {name}/* for what is in them"
                )
            # A pattern may name images of any ending, but of photos/* only the images are meant.
            is_known = any(is_image_name(file) or (videos and is_video_name(file)) for file in files)
            paths += _named_images(name, map(Path, matches), videos) if is_known else files
    return list(dict.fromkeys(paths))


def _named_images(name: str, paths: Iterable[Path], videos: bool) -> list[Path]:
    paths = list(paths)
    held, kind = images_among(paths), "images"
    if not held.files and videos and any(map(is_video_name, paths)):
        held, kind = images_among(paths, is_video_name), "videos"
    if not held.files:
        there = f": there are only {held.passed_over_line()}" if held.passed_over else ""
        wanted = "images or videos" if videos else "images"
        raise ValueError(f"{name} must hold {wanted} ({', '.join(sorted(image_endings()))}), got none{there}")
    if held.passed_over:
        LOGGER.warning("%s: %d %s; passed over: %s", name, len(held.files), kind, held.passed_over_line())
    return held.files


def picture_paths(paths: Sequence[Path], output: Path, ending: str = "") -> dict[Path, Path]:
    """Returns the path of the picture that is made of each image: its name and `ending`, .png, with a number where it is taken.

    No two images have the same picture, and no picture overwrites one of the images.
    """
    taken = set(map(name_key, paths))
    return {path: free_path(output, f"{path.stem}{ending}", ".png", taken) for path in paths}


def free_path(
    folder: Path, stem: str, suffix: str, taken: set[str], may_replace: Callable[[Path], bool] = lambda _: True
) -> Path:
    """Returns the path of a file that is not taken yet, with a number at its name's end where that is needed, and takes it.

    Args:
        folder: of the file.
        stem, suffix: its name.
        taken: the `name_key` of each path that is; that of the new one is added.
        may_replace: tells whether a file that is there may be replaced.
    """
    number, path = 1, folder / f"{stem}{suffix}"
    while name_key(path) in taken or (os.path.lexists(path) and not (path.is_file() and may_replace(path))):
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    taken.add(name_key(path))
    return path


def name_key(path: Path) -> str:
    """Returns the same word for all paths that are one file on some machine: many take `A.png` and `a.png` for the same."""
    return unicodedata.normalize("NFC", str(path.resolve())).casefold()
