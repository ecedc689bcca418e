"""Records a step without a finite loss in the folder nan/ of a work directory, and computes it again layer by layer."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from kfpn.config.run import Config
from kfpn.data.record import Source
from kfpn.modeling.networks import build_network
from kfpn.plotting.draw_boxes import draw_detections
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.checkpoint import Checkpoints, Progress, named_variables
from kfpn.runs.precision import dtype_policy
from kfpn.runs.workdir import Workdir
from kfpn.training.exact_masks import run_functions
from kfpn.training.nonfinite.diagnose import Finding, diagnose
from kfpn.training.nonfinite.kept_batch import read_batch, write_batch
from kfpn.training.optimizer import Optimizer
from kfpn.training.write_errors import write_errors

_BATCH, _STATE, _REPORT = "batch.npz", "state", "report.json"
_NOT_LOSSES = ("lr", "grad_norm", "loss", "skipped")


def nonfinite_message(step: int, row: Mapping[str, float]) -> str:
    """Returns an error such as `rpn_box must be finite, got nan at step 17`.

    It names the first loss that is not finite, else the sum of the losses, else the norm of the gradients.

    Args:
        step: counted from 1.
        row: losses, their sum `loss`, and `grad_norm`.
    """
    losses = [name for name in row if name not in _NOT_LOSSES and not math.isfinite(row[name])]
    name = losses[0] if losses else "loss" if not math.isfinite(row["loss"]) else "grad_norm"
    return f"{name} must be finite, got {row[name]} at step {step}"


class Recorder:
    """Keeps batch, state and pictures of a step without a finite loss in `workdir.nan`, and names the first bad value.

    Args:
        config: the run's.
        workdir: the run's.
        variables: name -> variable, the whole state of the run, as in its checkpoints.
        batches: (step) -> the global batches from that step on, name -> (B, ...) each.
        source: of the training images.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        variables: Mapping[str, keras.Variable],
        batches: Callable[[int], Iterable[Mapping[str, Any]]],
        source: Source,
    ):
        self.config = config
        self.workdir = workdir
        self.variables = variables
        self.batches = batches
        self.source = source

    @property
    def done(self) -> bool:
        """Whether the work directory already holds such a step."""
        return (self.workdir.nan / _REPORT).exists()

    def record(self, step: int, row: Mapping[str, float], progress: Progress) -> str:
        """Writes the folder nan/ and computes the step again; no failure in here is raised.

        Args:
            step: the step without a finite loss, counted from 1; the variables are as they were before it.
            row: its metrics.
            progress: of the run before that step.

        Returns:
            The finding, or what failed, as part of a sentence.
        """
        folder = self.workdir.nan
        try:
            folder.mkdir(parents=True, exist_ok=True)
            batch = {name: np.asarray(value) for name, value in next(iter(self.batches(step - 1))).items()}
            write_batch(folder / _BATCH, batch)
            Checkpoints(folder / _STATE, self.variables, keep=1).save(progress)
            images = [self.source[int(index)].name for index in batch["record_index"]]
            report = {"step": step, "row": {name: str(value) for name, value in row.items()}, "images": images}
            write_json(folder / _REPORT, report)
            draw_batch(folder, batch, self.source.class_names)
        except write_errors(ValueError) as error:  # For example a full disk, or an image that is gone.
            return f"{folder} can't be written ({error}), so nothing of the step is kept"
        kept = (
            f"batch, state and pictures are in {folder} ({', '.join(images)}); `kfpn replay-nan --workdir "
            f"{self.workdir.path}` computes the step again"
        )
        try:
            finding = replay(self.config, self.workdir)
            write_json(folder / _REPORT, {**report, "first": finding.first})
        except Exception as error:  # For example too little memory. The message still has to say what was kept.
            return f"what went first was not found ({type(error).__name__}: {str(error).splitlines()[0]}); {kept}"
        return f"{finding.line}; {kept}"


def draw_batch(folder: Path, batch: Mapping[str, np.ndarray], class_names: tuple[str, ...]) -> None:
    """Writes the images of a batch as the network sees them, with their ground truth, to 000.png, 001.png and so on.

    Args:
        folder: an existing folder.
        batch: of `train_batches`: `images` (B, H, W, 3) uint8, `image_sizes` (B, 2), `gt_boxes` (B, G, 4) yxyx pixels,
            `gt_labels` (B, G), -1 in padding.
        class_names: names of the labels, in their order.

    Raises:
        OSError: if a picture can't be written.
    """
    rows = zip(batch["images"], batch["image_sizes"], batch["gt_boxes"], batch["gt_labels"], strict=True)
    for index, (image, (height, width), boxes, labels) in enumerate(rows):
        picture = draw_detections(image[:height, :width], boxes, labels, None, class_names)
        Image.fromarray(picture).save(folder / f"{index:03d}.png")


def read_report(workdir: Workdir) -> dict[str, Any]:
    """Returns the report on the step that `workdir.nan` holds.

    Args:
        workdir: the run's.

    Returns:
        `step` counted from 1, `row` (metric -> text), `images` (their names) and, once it was found, `first`.

    Raises:
        ValueError: if there is no such step, or its report can't be read.
    """
    path = workdir.nan / _REPORT
    if not path.exists():
        raise ValueError(
            f"workdir must be of a run that met a loss that was not finite, got {str(workdir.path)!r} without {path}"
        )
    report = read_json(path)
    if not isinstance(report, dict) or not {"step", "row", "images"} <= report.keys():
        raise ValueError(f"{path} must be an object with step, row and images, got {str(report)[:80]}")
    return report


def replay(config: Config, workdir: Workdir) -> Finding:
    """Computes the step that `workdir.nan` holds again, with a new detector.

    Args:
        config: the run's.
        workdir: the run's.

    Returns:
        The losses of the step, and the first value that is not finite.

    Raises:
        ValueError: naming the file, if batch or state can't be read or don't belong to the configuration.
    """
    path = workdir.nan / _BATCH
    batch = read_batch(path)
    with dtype_policy(config.precision):
        submodels = build_network(config)
        optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
        variables = named_variables(model=submodels.weights_model.variables, optimizer=optimizer.variables)
        state = Checkpoints(workdir.nan / _STATE, variables)
        if not state.steps():
            raise ValueError(f"{state.folder} must hold the state before the step, got no checkpoint")
        state.restore()
        return diagnose(submodels, config, batch, optimizer.loss_scale, *run_functions(config))
