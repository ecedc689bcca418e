"""Finds the COCO checkpoint that `--init auto` starts from: on this machine, or by a download that fails quickly."""

import logging
import os
import re
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from kfpn.config.backbone_names import KERAS
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.workdir import Workdir
from kfpn.weights.pretrained import Pretrained, download_folder, fetch, file_difference, list_pretrained

LOGGER = logging.getLogger("kfpn")

AUTO = "auto"
"""The value of `init` that asks for a checkpoint to be found."""
ANSWER_SECONDS = 4.0
"""A server that does not answer in this time counts as out of reach."""
STALL_SECONDS = 30.0
"""A download that receives nothing for this time has failed."""
WAIT_SECONDS = 1800.0
"""The longest time that the other workers wait for the one that looks."""
FOUND = "init.json"
"""The file in the work directory by which the first worker tells the others what it has found."""


def coco_checkpoints(backbone: str, mask: bool = False, cascade: bool = False) -> tuple[Pretrained, ...]:
    """Returns the published detectors with a backbone that have the network's heads, those with the highest box AP first.

    Args:
        backbone: such as resnet50.
        mask: put those with masks before those without. Else those with masks are left out.
        cascade: put those with a cascade first, with masks or not. Else they are left out.
    """
    fitting = [known for known in list_pretrained() if known.box_ap is not None and _backbone_of(known) == backbone]
    fitting = [known for known in fitting if (cascade if known.cascade else mask or known.mask_ap is None)]
    return tuple(sorted(fitting, key=lambda one: (not one.cascade, one.mask_ap is None, -(one.box_ap or 0.0))))


def _backbone_of(known: Pretrained) -> str:
    depth = re.search(r"(?:resnet|_R_)(\d+)", known.name)
    return f"resnet{depth[1]}" if depth else ""


def places_of(known: Pretrained) -> tuple[Path, ...]:
    """Returns where a checkpoint may lie already: kfpn's cache, the current folder, and the caches of PyTorch and detectron2."""
    address = urlparse(known.url).path.lstrip("/")
    file = Path(address).name
    torch_home = Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser()
    iopath = Path(os.environ.get("FVCORE_CACHE") or "~/.torch/iopath_cache").expanduser()
    return download_folder() / known.file_name, Path(file), torch_home / "hub" / "checkpoints" / file, iopath / address


def auto_init(
    backbone: str,
    workdir: str | os.PathLike,
    worker: int = 0,
    several: bool = False,
    mask: bool = False,
    cascade: bool = False,
) -> str | None:
    """Returns the checkpoint that a run starts from, and says in one line what it is or what was tried.

    A run that has begun keeps what it took: it is read from its config.json. Of several workers only the first one looks. It
    puts the file into the work directory, which all of them see.

    Args:
        backbone: of the network, such as resnet50.
        workdir: of the run.
        worker: number of this process.
        several: whether there are other processes.
        mask: whether the network has a mask head.
        cascade: whether it has the box heads of a cascade.

    Returns:
        The path of a file; None: random weights.

    Raises:
        ValueError: in a worker that has waited for the first one in vain.
    """
    run = Workdir(workdir)
    if run.config.exists():
        init = run.read_config().init
        print(f"init auto: {init or 'random weights'}, as {run.config} has it", flush=True)
        return init
    if not several:
        return _found(backbone, mask, cascade)
    record = run.path / FOUND
    if worker == 0 and not record.exists():
        weights = _found(backbone, mask, cascade)
        run.check_writable()
        if weights is not None:
            shared = run.path / Path(weights).name
            if not shared.exists():
                aside = shared.with_name(f"{shared.name}.tmp")
                shutil.copyfile(weights, aside)
                os.replace(aside, shared)
            weights = str(shared)
        write_json(record, {"init": weights})
    return _told_by_the_first(record)


def _told_by_the_first(record: Path) -> str | None:
    """Waits for what the first worker found."""
    end = time.monotonic() + WAIT_SECONDS
    while not record.exists():
        if time.monotonic() > end:
            raise ValueError(
                f"{record} must be written by the first worker, got none in {WAIT_SECONDS / 60:.0f} minutes: workdir must be "
                "one folder that all of them see"
            )
        time.sleep(0.2)
    weights: str | None = read_json(record)["init"]
    return weights


def _found(backbone: str, mask: bool, cascade: bool) -> str | None:
    known = coco_checkpoints(backbone, mask, cascade)
    if not known:
        hint = f" (--init {backbone} starts from its ImageNet weights)" if backbone.startswith(KERAS) else ""
        LOGGER.warning(
            "init auto: no known COCO checkpoint has the backbone %s; starts from random weights%s", backbone, hint
        )
        return None
    for one in known:
        for place in places_of(one):
            if place.is_file() and file_difference(one, place) is None:
                print(f"init auto: {one.name}, {place}", flush=True)
                return str(place)
    return _downloaded(known)


def _downloaded(known: tuple[Pretrained, ...]) -> str | None:
    """Downloads the best checkpoint whose server answers; None: no one does."""
    failures: dict[str, str] = {}
    for one in known:
        host = urlparse(one.url).netloc
        if host in failures:
            continue
        reason = _why_silent(one.url)
        if reason is None:
            try:
                with _stalls_fail():
                    path = fetch(one.name)
            except ValueError as error:
                reason = str(error).splitlines()[0]
            else:
                print(f"init auto: {one.name}, {path}", flush=True)
                return str(path)
        failures[host] = reason
    tried = "; ".join(f"{host}: {reason}" for host, reason in failures.items())
    folders = ", ".join(str(place.parent) for place in places_of(known[0]))
    LOGGER.warning(
        "init auto: no COCO checkpoint (%s) lies in %s, and none could be downloaded (%s); starts from random weights",
        ", ".join(one.name for one in known), folders, tried,
    )  # fmt: skip
    return None


def _why_silent(url: str) -> str | None:
    """Tells why an address can't be reached; None: it answers."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
                outcome.append(None)
        except Exception as error:  # urllib raises errors of many types
            reason = getattr(error, "reason", error)
            outcome.append(str(getattr(reason, "strerror", None) or reason) or type(error).__name__)

    # A thread, because a look-up of a name heeds no timeout. It is left behind where it hangs.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return outcome[0] if outcome else f"no answer in {ANSWER_SECONDS:g} s"


@contextmanager
def _stalls_fail() -> Iterator[None]:
    """Lets a download fail that receives nothing, in a `with` block."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
