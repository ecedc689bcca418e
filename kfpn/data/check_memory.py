"""Remembers, in a file beside a data set, what its files were found to be, so that each of them is checked once."""

import contextlib
import hashlib
import io
import logging
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from kfpn import __version__

LOGGER = logging.getLogger("kfpn")

CHECKED = ("height", "width", "orientation", "bits", "highest")
"""What is remembered of an image."""
_VERSION = f"4 kfpn {__version__} Pillow {PIL.__version__}"
"""What was found by another version counts no more: its rules may have been others."""
STAMP = 4
"""Numbers by which a file is known again, see `file_stamps`."""
_LONGEST_WAIT = 600.0  # seconds that a process waits for another one that checks the same data


class CheckMemory:
    """Holds what is remembered of the files of one data set.

    A file is known again by its path, its size, its number and the times at which it was written and changed. Nothing in the memory's own file is
    trusted that does not fit: another version, another data set, another user's file or damage are all as if it were not there.

    Args:
        place: str, what the memory is of: the data set's name, its split and, where its path is not absolute, the folder in
            which it counts.
        beside: a file or folder of the data set; the memory lies in that folder or, where it can't be written, in the
            user's cache.
        check_images: "full", "once" or "none", see `Config.check_images`.
        beside_data: False: the memory lies in the user's cache alone, and nothing is written beside the data set.
    """

    def __init__(self, place: str, beside: Path, check_images: str = "once", *, beside_data: bool = True) -> None:
        folder = beside if beside.is_dir() else beside.parent
        # The folder's number tells it from a copy: what a stranger packs with the data must not count as checked here.
        self.place = f"{_VERSION} {place} {folder.stat().st_ino}"
        self.check_images = check_images
        name = f".kfpn-checked-{hashlib.sha256(self.place.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.npz"
        self.files = (folder / name, cache_folder() / name) if beside_data else (cache_folder() / name,)
        self.arrays: dict[str, np.ndarray] = {}
        self.time = time.time()
        self.changed = False

    def read(self) -> None:
        """Reads the memory's file, where there is one that can be used."""
        for file in self.files:
            with contextlib.suppress(Exception):  # missing, foreign or damaged: it is written again
                if not _is_own(file):
                    continue
                with np.load(file, allow_pickle=False) as stored:
                    arrays = {key: stored[key] for key in stored.files}
                if str(arrays.pop("place")) == self.place and _is_sound(arrays):
                    self.arrays = arrays
                    return

    @property
    def count(self) -> int:
        """Returns how many files are remembered."""
        return len(self.arrays["stamps"]) if "stamps" in self.arrays else 0

    def recall(self, paths: Sequence[str], stamps: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Fills in what is remembered of files.

        Args:
            paths: N files.
            stamps: (N, 4) of `file_stamps`.
            rows: (N, 5) int32; those of the known files are overwritten.

        Returns:
            (N,) bool, the files that are known and have not changed.
        """
        known = np.zeros(len(paths), bool)
        if "paths" not in self.arrays:
            return known
        place_of = {path: place for place, path in enumerate(unpack(self.arrays["paths"]))}
        places = np.asarray([place_of.get(absolute(path), -1) for path in paths], np.int64)
        known = (places >= 0) & settled(stamps, float(self.arrays["time"]))
        if known.any():
            known &= (self.arrays["stamps"][places] == stamps).all(axis=1)
        rows[known] = self.arrays["rows"][places[known]]
        return known

    def learn(self, paths: Sequence[str], stamps: np.ndarray, rows: np.ndarray, good: np.ndarray) -> None:
        """Remembers files in place of all that was remembered before.

        Args:
            paths: N files.
            stamps: (N, 4) of `file_stamps`, taken before the files were read.
            rows: (N, 5) int32, what was found.
            good: (N,) bool, the files to remember; the others had faults.
        """
        whole = [absolute(path) for path, kept in zip(paths, good, strict=True) if kept]
        self.arrays = {"paths": pack(whole), "stamps": stamps[good], "rows": rows[good], "time": np.asarray(self.time)}
        self.changed = True

    def write(self) -> None:
        """Writes the memory aside and renames it; where nothing can be written, all is checked again each time."""
        if not self.changed:
            return
        content = io.BytesIO()
        np.savez(content, place=np.asarray(self.place), **self.arrays)  # type: ignore[arg-type]
        why: OSError | None = None
        for file in self.files:
            if file.parent.is_dir() and not file.parent.stat().st_mode & 0o222:
                continue  # root could write there, but nobody is meant to
            aside = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                aside.write_bytes(content.getbuffer())
                os.replace(aside, file)
                self.changed = False
                return
            except OSError as error:
                why = error
                with contextlib.suppress(OSError):
                    aside.unlink(missing_ok=True)
        LOGGER.info("%s can't be written (%s), so the data set is checked again each time", self.files[-1], why)


_CURRENT: ContextVar[CheckMemory | None] = ContextVar("check_memory", default=None)


def current_memory() -> CheckMemory | None:
    """Returns the memory of the data set that is being opened; None where there is none, and all is checked."""
    return _CURRENT.get()


@contextlib.contextmanager
def remembering(memory: CheckMemory) -> Iterator[CheckMemory]:
    """Makes a memory the current one, and writes what it has learnt, also when the data set turns out to have faults.

    Processes that open one data set at the same time do it one after the other, so that the first one checks for all.
    """
    with _one_at_a_time(memory.place):
        memory.read()
        token = _CURRENT.set(memory)
        try:
            yield memory
        finally:
            _CURRENT.reset(token)
            memory.write()


@contextlib.contextmanager
def _one_at_a_time(place: str) -> Iterator[None]:
    """Waits for other processes of this user and machine that hold the same place. Where that can't be done, goes on at once."""
    try:
        import fcntl
    except ImportError:  # Windows: both check, and the later one's memory stays
        yield
        return
    name = f"kfpn-{os.getuid()}-{hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.lock"
    try:
        lock = os.open(Path(tempfile.gettempdir(), name), os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield
        return
    try:
        begin, said = time.monotonic(), False
        while (waited := time.monotonic() - begin) < _LONGEST_WAIT:
            if waited > 1.0 and not said:
                said = True
                LOGGER.warning("waits until another process has opened the same data set")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def file_stamps(paths: Sequence[str | Path]) -> np.ndarray:
    """Returns what tells that a file is the one that it was: (N, 4) int64; -1 where one can't be seen.

    These are its size in bytes, the time of writing in nanoseconds, the time of any change to the file, and its number on the
    disk. Tools that copy files keep the time of writing, so it does not tell two files of one size apart.
    """
    stamps = np.full((len(paths), STAMP), -1, np.int64)
    for i, path in enumerate(paths):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        stamps[i] = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (2**63 - 1)
    return stamps


def settled(stamps: np.ndarray, checked: float) -> np.ndarray:
    """Tells which files were not written in the very moment before they were checked.

    A file that is written twice in one tick of the file system's clock keeps its time. Clocks tick every few milliseconds; where
    times are whole seconds, every two seconds.

    Args:
        stamps: (N, 4) of `file_stamps`.
        checked: when the memory was written, in seconds.

    Returns:
        (N,) bool; also False for files that can't be seen.
    """
    coarse = stamps[:, 1] % 1_000_000_000 == 0
    tick = np.where(coarse, 2_000_000_000, 20_000_000)
    return (stamps[:, 0] >= 0) & (stamps[:, 1] + tick < int(checked * 1e9))


def absolute(path: str) -> str:
    """Returns an absolute path, so that a memory is the same from any folder."""
    return path if path.startswith("/") else os.path.abspath(path)


def pack(texts: Sequence[str]) -> np.ndarray:
    """Returns texts without NUL as one array of bytes."""
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def unpack(packed: np.ndarray) -> list[str]:
    """Returns the texts of `pack`."""
    text = packed.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\0") if text else []


def cache_folder() -> Path:
    """Returns the user's folder for what can be made again: $XDG_CACHE_HOME/kfpn, else ~/.cache/kfpn."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "kfpn")
    try:
        return Path("~/.cache").expanduser() / "kfpn"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir(), f"kfpn-{os.getuid() if hasattr(os, 'getuid') else 'cache'}")


def _is_own(file: Path) -> bool:
    status = os.stat(file)
    return stat.S_ISREG(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


def _is_sound(arrays: dict[str, Any]) -> bool:
    stamps, rows = arrays["stamps"], arrays["rows"]
    count = len(unpack(arrays["paths"]))
    return (
        arrays["paths"].dtype == np.uint8
        and (stamps.dtype, rows.dtype) == (np.int64, np.int32)
        and (stamps.shape, rows.shape) == ((count, STAMP), (count, len(CHECKED)))
        and bool((rows[:, :3] > 0).all() and (rows[:, 2] <= 8).all() and (rows[:, 3:] >= 0).all())
        and np.ndim(arrays["time"]) == 0
        and 0.0 < float(arrays["time"]) <= time.time() + 1.0
    )
