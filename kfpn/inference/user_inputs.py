"""Finds what a user wants to have looked at: image files, videos and addresses; and reads their pictures ahead of the network."""

import codecs
import contextvars
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np

from kfpn.config.run import InputConfig
from kfpn.data.augment import size_rule
from kfpn.data.image import decode_picture, load_picture
from kfpn.data.jpeg_fraction import DecodedImage, whole_image
from kfpn.inference.image_address import fetch_image, is_address, stem_of_address
from kfpn.inference.images_of_user import find_images
from kfpn.inference.video_reader import EndedEarly, Frame, is_video_name, read_frames, require_pyav

STANDARD_INPUT = "-"
"""The name that stands for a list of names on standard input."""
AHEAD = 2
"""Pictures that are read ahead: a large image takes half a gigabyte, so there are few."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LAST_ITEM_SECONDS = 2.0  # of waiting for what the other thread is at, such as a frame of a video
Item = TypeVar("Item")


@dataclass(frozen=True)
class UserInput:
    """Names one thing that is looked at.

    Attributes:
        name: a path, or an address.
        kind: what it is, by its name.
    """

    name: str
    kind: Literal["image", "video", "address"]

    @property
    def stem(self) -> str:
        """Returns what a picture of it is called, without the ending."""
        return stem_of_address(self.name) if self.kind == "address" else Path(self.name).stem


@dataclass(frozen=True)
class UserPicture:
    """Holds a picture that was read: an image, or a frame of a video.

    Attributes:
        source: what it was read of.
        image_id: counts images and frames of all sources, from 1; an image that could not be read counts.
        image: as it was decoded for the network.
        pixels: (H, W, 3) uint8 RGB, of the whole image.
        frame: of a video; None: it is an image.
    """

    source: UserInput
    image_id: int
    image: DecodedImage
    pixels: np.ndarray
    frame: Frame | None = None


@dataclass(frozen=True)
class UnreadInput:
    """Tells that an input could not be read.

    Attributes:
        source: the input.
        line: what is wrong, with its name.
        in_part: whether a part of it was read.
    """

    source: UserInput
    line: str
    in_part: bool = False


def find_inputs(names: Sequence[str], standard_input: BinaryIO | None = None) -> list[UserInput]:
    """Returns what names, folders, patterns, addresses and lists of them stand for, in order, each once.

    Args:
        names: as `find_images` takes them, and http and https addresses of images. "-" stands for the names on standard input, a
            line each, or ended by zero bytes, as `find -print0` writes them.
        standard_input: None: that of the process.

    Raises:
        ValueError: as `find_images`, for an address of a video, for an empty list, or if there are videos and PyAV is not installed.
    """
    inputs: list[UserInput] = []
    for name in names:
        listed = [name]
        if name == STANDARD_INPUT:  # `sys.stdin` is None where it is closed
            listed = _names_listed_on(standard_input or getattr(sys.stdin, "buffer", None))
        for one in listed:
            if is_address(one):
                if is_video_name(one.partition("?")[0]):
                    raise ValueError(f"images must be files or addresses of images, got the video {one}: download it")
                inputs.append(UserInput(one, "address"))
            else:
                paths = find_images([one], videos=True)
                inputs += [UserInput(str(path), "video" if is_video_name(path) else "image") for path in paths]
    if any(one.kind == "video" for one in inputs):
        require_pyav()
    return list(dict.fromkeys(inputs))


def _names_listed_on(file: BinaryIO | None) -> list[str]:
    content = file.read() if file is not None else b""
    if content.startswith(_UTF_16):  # as PowerShell writes lists
        content = content.decode("utf-16", "replace").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    names = content.split(b"\0") if b"\0" in content else content.splitlines()
    listed = [os.fsdecode(name) for name in names if name.strip()]
    if not listed:
        raise ValueError("images must be named on standard input, a line each, got nothing")
    return listed


def read_inputs(inputs: Sequence[UserInput], rule: InputConfig) -> Iterator[UserPicture | UnreadInput]:
    """Yields the pictures of inputs, and which of them could not be read.

    Args:
        inputs: of `find_inputs`.
        rule: makes the largest image of each, see `decode_picture`.
    """
    image_id = 0
    for one in inputs:
        if one.kind == "video":
            try:
                for frame in read_frames(Path(one.name)):
                    image_id += 1
                    yield UserPicture(one, image_id, whole_image(frame.pixels), frame.pixels, frame)
            except ValueError as error:
                yield UnreadInput(one, str(error), isinstance(error, EndedEarly))
        else:
            image_id += 1
            try:
                image, pixels = _read_image(one, rule)
            except ValueError as error:
                yield UnreadInput(one, str(error))
            else:
                yield UserPicture(one, image_id, image, pixels)


def _read_image(one: UserInput, rule: InputConfig) -> tuple[DecodedImage, np.ndarray]:
    """Returns an image as it is decoded for the network, and its own pixels."""
    file: Path | bytes = Path(one.name)
    if one.kind == "address":
        try:
            file = fetch_image(one.name)
        except ValueError as error:
            raise ValueError(f"{one.name}: {error}") from error
    image = decode_picture(file, one.name, size_rule(rule))
    return image, image.pixels if image.is_whole() else load_picture(file, one.name)


def read_ahead(items: Iterator[Item], count: int = AHEAD) -> Iterator[Item]:
    """Yields what an iterator gives, in its order; the next items are made in another thread meanwhile.

    An exception of the iterator is raised where its item would have come. When this generator is closed, the iterator is closed too,
    but nobody waits long for an item that is under way: a server may be slow.

    Args:
        items: is used in the other thread only, with the context variables of this one.
        count: items that wait at most.
    """
    end: Any = object()
    ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    room, stop = threading.Semaphore(count), threading.Event()

    def make() -> None:
        item: Any = None
        try:
            while item is not end and room.acquire() and not stop.is_set():
                item = next(items, end)
                ready.put((item, None))
        except BaseException as error:
            ready.put((end, error))
        finally:
            if close := getattr(items, "close", None):
                close()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(make,), name="kfpn-read-ahead", daemon=True)
    thread.start()
    try:
        while (got := ready.get())[0] is not end:
            room.release()
            yield got[0]
        if got[1] is not None:
            raise got[1]
    finally:
        stop.set()
        room.release()
        thread.join(_LAST_ITEM_SECONDS)
