"""Opens the trained detector that every export starts from, and writes every export aside before it is renamed."""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras

from kfpn.config.checks import require_local
from kfpn.config.run import Config
from kfpn.export.asset_files import ExportPrecision
from kfpn.export.folding import fold_norms, fold_segment_norms
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.runs.load import load_segment_submodels, load_submodels, require_trained, task_of
from kfpn.runs.thresholds import require_thresholds
from kfpn.runs.workdir import Workdir

LOGGER = logging.getLogger("kfpn")


@dataclass(frozen=True)
class TrainedDetector:
    """A trained detector, ready to be exported.

    Attributes:
        path: its work directory.
        config: of the run.
        submodels: with batch norms folded into the convolutions.
        unfolded: the submodels as they were trained.
        class_names: names of labels 0, 1, and so on.
        category_ids: the data set's own ids of these classes.
        thresholds: the least score of a detection of each label that the export gives; None: all are given.
        precision: of `submodels`. `unfolded` are float32.
    """

    path: Path
    config: Config
    submodels: Submodels
    unfolded: Submodels
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    thresholds: tuple[float, ...] | None = None
    precision: ExportPrecision = "float32"


@dataclass(frozen=True)
class TrainedSegmenter:
    """What a run with `--task segments` has trained, ready to be exported.

    Attributes:
        path: its work directory.
        config: of the run.
        submodels: with batch norms folded into the convolutions.
        unfolded: the submodels as they were trained.
        precision: of `submodels`. `unfolded` are float32.
    """

    path: Path
    config: Config
    submodels: SegmentSubmodels
    unfolded: SegmentSubmodels
    precision: ExportPrecision = "float32"


def require_backend_of_exports() -> None:
    """Checks that TensorFlow is Keras' backend: all exports are made of its graphs.

    Raises:
        ValueError: if it is another.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        raise ValueError(
            f"KERAS_BACKEND must be tensorflow to export, got {backend!r}: export in a process of its own, because a work directory "
            "belongs to no backend"
        )


def open_either(workdir: str | os.PathLike, best_thresholds: bool = False) -> TrainedDetector | TrainedSegmenter:
    """Loads the detector, or what proposes segments, of a work directory for export; see `open_trained`."""
    require_backend_of_exports()
    if task_of(workdir) == "detections":
        return open_trained(workdir, best_thresholds)
    folder = Workdir(workdir)
    require_trained(folder, rpn=False, task="segments")
    config, unfolded = folder.read_config(), load_segment_submodels(folder)
    return TrainedSegmenter(folder.path, config, fold_segment_norms(unfolded, config.model), unfolded)


def open_trained(workdir: str | os.PathLike, best_thresholds: bool = False) -> TrainedDetector:
    """Loads the detector of a work directory for export.

    Args:
        workdir: of `kfpn train` or `kfpn import-weights`.
        best_thresholds: take the thresholds that `kfpn evaluate --best-thresholds` keeps in the work directory.

    Raises:
        ValueError: if the folder is missing, is not a work directory or holds no weights, or no thresholds if they are asked for, or
            TensorFlow is not Keras' backend.
    """
    require_backend_of_exports()
    folder = Workdir(workdir)
    require_trained(folder)
    thresholds = require_thresholds(folder) if best_thresholds else None
    config = folder.read_config()
    if config.input.tile:
        LOGGER.warning(
            "%s was trained on tiles of %d pixels: an export looks at what it is given as a whole, so cut tiles before (docs/tiles.md)",
            folder.path, config.input.tile,
        )  # fmt: skip
    class_names, category_ids = folder.read_classes()
    unfolded = load_submodels(folder)
    folded = fold_norms(unfolded, config.model)
    return TrainedDetector(folder.path, config, folded, unfolded, class_names, category_ids, thresholds)


@contextlib.contextmanager
def written_aside(target: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside `target` to write a file or folder to, and renames it to `target` when all went well.

    Args:
        target: the file or folder to write. It must not exist yet. Folders above it are made.

    Raises:
        ValueError: if it exists or its place cannot be written. Nothing is left behind after an error.
    """
    require_local("output", target)
    target = Path(target)
    if target.exists():
        raise ValueError(f"{target} must not exist yet: remove it, or export to another place")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ValueError(
            f"{target} must lie in a folder that can be written, got {target.parent}: {error.strerror}"
        ) from error
    try:
        yield aside / target.name
        _rename(aside / target.name, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _rename(aside: Path, target: Path) -> None:
    try:
        os.replace(aside, target)
    except OSError as error:  # another export made it meanwhile
        raise ValueError(f"{target} must not exist yet, but it appeared meanwhile ({error.strerror})") from error


def next_version(directory: str | os.PathLike) -> Path:
    """Returns the folder of the next version in a model's directory: 1 in a new one.

    Raises:
        ValueError: if `directory` is a file.
    """
    require_local("output", directory)
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} must be a folder, got a file")
    numbers = [int(path.name) for path in directory.glob("*") if path.name.isdigit()] if directory.exists() else []
    return directory / str(max(numbers, default=0) + 1)
