"""Steps without a finite loss: what they were made of is kept in a work directory's nan/, and computed again layer by layer."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from kfpn.config.run import Config
from kfpn.data.record import Source
from kfpn.losses.training_losses import training_functions
from kfpn.modeling.submodels import build_submodels
from kfpn.plotting.draw_boxes import draw_detections
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.checkpoint import Checkpoints, Progress, named_variables
from kfpn.runs.precision import dtype_policy
from kfpn.runs.workdir import Workdir
from kfpn.training.nonfinite.diagnose import Finding, diagnose
from kfpn.training.optimizer import Optimizer

_BATCH, _STATE, _REPORT = "batch.npz", "state", "report.json"
_NOT_LOSSES = ("lr", "grad_norm", "loss", "skipped")


def not_finite(step: int, row: Mapping[str, float]) -> str:
    """Returns `rpn_box must be finite, got nan at step 17`, of the first loss that is not, else of the gradients' norm.

    Args:
        step: counted from 1.
        row: losses, their sum `loss`, and `grad_norm`.
    """
    bad = [name for name in row if name not in _NOT_LOSSES and not math.isfinite(row[name])]
    name = bad[0] if bad else "loss" if not math.isfinite(row["loss"]) else "grad_norm"
    return f"{name} must be finite, got {row[name]} at step {step}"


class Recorder:
    """Keeps batch, state and pictures of a step without a finite loss in `workdir.nan`, and says what went first.

    Args:
        config: the run's.
        workdir: the run's.
        variables: name -> variable, all state of the run, as in its checkpoints.
        batches: (step) -> data set of the global batches from that step on.
        source: of the training images.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        variables: Mapping[str, keras.Variable],
        batches: Callable[[int], tf.data.Dataset],
        source: Source,
    ):
        self.config = config
        self.workdir = workdir
        self.variables = variables
        self.batches = batches
        self.source = source

    @property
    def done(self) -> bool:
        """Whether the work directory holds such a step already."""
        return (self.workdir.nan / _REPORT).exists()

    def record(self, step: int, row: Mapping[str, float], progress: Progress) -> str:
        """Writes nan/ and computes the step again.

        Args:
            step: the one at fault, counted from 1; the variables are as they were before it.
            row: its losses.
            progress: of the run before that step.

        Returns:
            What came out, as part of a sentence; nothing that fails here is raised.
        """
        folder = self.workdir.nan
        try:
            folder.mkdir(parents=True, exist_ok=True)
            batch = {name: value.numpy() for name, value in next(iter(self.batches(step - 1))).items()}
            np.savez(folder / _BATCH, **batch)
            Checkpoints(folder / _STATE, self.variables, keep=1).save(progress)
            images = [self.source[int(index)].name for index in batch["record_index"]]
            report = {"step": step, "row": {name: str(value) for name, value in row.items()}, "images": images}
            write_json(folder / _REPORT, report)
            draw_batch(folder, batch, self.source.class_names)
        except (OSError, ValueError, tf.errors.OpError) as error:  # a full disk, or an image that is gone
            return f"{folder} can't be written ({error}), so nothing of the step is kept"
        kept = (
            f"batch, state and pictures are in {folder} ({', '.join(images)}); `kfpn replay-nan --workdir "
            f"{self.workdir.path}` computes the step again"
        )
        try:
            finding = replay(self.config, self.workdir)
            write_json(folder / _REPORT, {**report, "first": finding.first})
        except Exception as error:  # out of memory, perhaps: what was kept must still be told of
            return f"what went first was not found ({type(error).__name__}: {str(error).splitlines()[0]}); {kept}"
        return f"{finding.line}; {kept}"


def draw_batch(folder: Path, batch: Mapping[str, np.ndarray], class_names: tuple[str, ...]) -> None:
    """Writes 000.png, 001.png, ...: the images of a batch as the network saw them, with their ground truth.

    Args:
        folder: is there.
        batch: of `train_batches`: images (B, H, W, 3) uint8, image_sizes (B, 2), gt_boxes (B, G, 4) yxyx pixels, gt_labels
            (B, G), -1 in padding.
        class_names: of the labels.

    Raises:
        OSError: if they can't be written.
    """
    rows = zip(batch["images"], batch["image_sizes"], batch["gt_boxes"], batch["gt_labels"], strict=True)
    for index, (image, (height, width), boxes, labels) in enumerate(rows):
        picture = draw_detections(image[:height, :width], boxes, labels, None, class_names)
        Image.fromarray(picture).save(folder / f"{index:03d}.png")


def read_report(workdir: Workdir) -> dict[str, Any]:
    """Returns what is known of the step in `workdir.nan`: `step`, `row`, `images`, `first`.

    Raises:
        ValueError: if there is no such step, or it can't be read.
    """
    path = workdir.nan / _REPORT
    if not path.exists():
        raise ValueError(
            f"workdir must be of a run that met a loss that was not finite, got {str(workdir.path)!r} without {path}"
        )
    found = read_json(path)
    if not isinstance(found, dict) or not {"step", "row", "images"} <= found.keys():
        raise ValueError(f"{path} must be an object with step, row and images")
    return found


def replay(config: Config, workdir: Workdir) -> Finding:
    """Computes the step in `workdir.nan` again with a detector of its own.

    Args:
        config: the run's.
        workdir: the run's.

    Returns:
        Its losses, and what went non-finite first.

    Raises:
        ValueError: naming the file, if batch or state can't be read or don't belong to the configuration.
    """
    path = workdir.nan / _BATCH
    try:
        with np.load(path, allow_pickle=False) as file:
            batch = {name: tf.constant(file[name]) for name in file.files}
    except Exception as error:  # numpy and zipfile fail in every way there is
        raise ValueError(f"{path} must be the batch that a run kept, got: {error}") from error
    with dtype_policy(config.precision):
        submodels = build_submodels(config.model)
        submodels.rpn.trainable = not config.proposals
        optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
        variables = named_variables(model=submodels.weights_model.variables, optimizer=optimizer.variables)
        state = Checkpoints(workdir.nan / _STATE, variables)
        if not state.steps():
            raise ValueError(f"{state.folder} must hold the state before the step, got no checkpoint")
        state.restore()
        return diagnose(submodels, config, batch, optimizer.loss_scale, *training_functions(config))
