"""Writes a work directory while `fit` trains a detector: what the commands of kfpn take."""

import dataclasses
import json
import os
import time
import warnings
from contextlib import suppress
from typing import Any

import keras

from kfpn.config.run import Config
from kfpn.evaluation.coco_figures import FIGURES, OF_MASKS
from kfpn.runs.finite_weights import path_of_nonfinite
from kfpn.runs.kept_backbone import with_written_backbone
from kfpn.runs.own_folder import require_own_config
from kfpn.runs.workdir import Workdir
from kfpn.training.detecting_callbacks import PREFIX, OfDetector
from kfpn.training.trainable import TrainableDetector

DECIDES = f"{PREFIX}AP"
"""The figure by which weights are kept where none is named."""


class WorkDirectory(OfDetector):
    """Writes a work directory that `kfpn evaluate`, `predict`, `report` and `export` take, and `kfpn.load_detector`.

    After each epoch a row of losses, and one of figures where `CocoAP` stands before it in the list, are added to metrics.jsonl. The
    weights are those of the epoch with the best `monitor`, or of the last epoch where nothing measures it.

    Args:
        path: of the folder. A folder with a run of `kfpn train` is refused.
        config: kfpn.Config, whose `input` says how images are resized and whose `data` says what they are; None: that of the
            batches of `kfpn.dataset` which `fit` is given, or the detector's `input_config`.
        monitor: the figure that decides, larger is better.

    Weights that are not finite are never written: they would replace good ones. The training ends then, with a warning.

    Raises:
        ValueError: if `monitor` is no name, or that of a loss; when training begins, if the folder can't be written or holds another
            run, or nothing says how images are resized.
    """

    def __init__(self, path: str | os.PathLike, config: Config | None = None, monitor: str = DECIDES):
        super().__init__()
        if not isinstance(monitor, str) or _is_loss(monitor) or monitor.removeprefix(OF_MASKS) in FIGURES:
            raise ValueError(
                f"monitor must be a figure of which more is better, such as val_AP, val_AP50 or val_mask_AP, got {monitor!r}: the weights "
                "of the epoch with the largest one are kept"
            )
        self.workdir = Workdir(path)
        self.config, self.monitor = config, monitor
        self._best: float | None = None
        self._begun = 0.0
        self._own_run = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Writes config.json and classes.json, so that what is wrong with the folder comes before the training."""
        model = self.trained
        config = self._config_of(model)
        require_own_config(self.workdir, "path")
        self.workdir.check_writable()
        steps = _steps_taken(model)
        if self.workdir.has_checkpoints() or (self.workdir.holds_training() and not self._own_run and steps == 0):
            raise ValueError(
                f"path must be a folder without a run, got {str(self.workdir.path)!r}, which holds trained weights: name another folder"
            )
        names, ids = model.detector.class_names, model.detector.category_ids
        config = with_written_backbone(self.workdir.path, config, model.network.submodels.features)
        self.workdir.prepare(config, names, ids, config.data)
        self.workdir.drop_metrics_after(steps, steps)
        self._best = self._best_before()
        self._own_run, self._begun = True, time.monotonic()

    def _config_of(self, model: TrainableDetector) -> Config:
        given = self.config or model.data_config
        rule = getattr(model.detector, "input_config", None) if given is None else given.input
        if rule is None:
            raise ValueError(
                "WorkDirectory must know how images are resized, got batches that do not say it: give fit the batches of kfpn.dataset, "
                "set detector.input_config = kfpn.InputConfig(...), or write WorkDirectory(PATH, config=kfpn.Config(input=...))"
            )
        precision: Any = model.dtype_policy.name  # float32, mixed_float16 or mixed_bfloat16: see `policy_of`
        return dataclasses.replace(
            given or Config(data="fit"), model=model.config.model, sampling=model.config.sampling, input=rule,
            precision=precision, workdir=str(self.workdir.path), init=None, proposals=None,
        )  # fmt: skip

    def _best_before(self) -> float | None:
        """Returns the best figure of the rows that are there already, for a training that goes on."""
        if not self.workdir.metrics.exists():
            return None
        name = self.monitor.removeprefix(PREFIX)
        rows = [json.loads(line) for line in self.workdir.metrics.read_text(encoding="utf-8").splitlines()]
        return max((row[name] for row in rows if row.get(name) is not None), default=None)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the rows of the epoch, and writes the weights if they are the best, or if nothing says which are.

        Raises:
            OSError: if the weights can't be written.
        """
        logs = dict(logs or {})
        step = _steps_taken(self.trained)
        of_validation = {name: value for name, value in logs.items() if name.startswith(PREFIX)}
        row = _as_numbers({name: value for name, value in logs.items() if name not in of_validation})
        seconds = time.monotonic() - self._begun
        rate = float(keras.ops.convert_to_numpy(self.trained.optimizer.learning_rate))
        rows = [{"step": step, **row, "lr": rate, "seconds": seconds}]
        if of_validation:
            rows.append({"step": step, **_row_of_figures(of_validation), "seconds": seconds})
        score = logs.get(self.monitor)
        try:
            for one in rows:
                self.workdir.append_metrics(one)
        except OSError as error:
            warnings.warn(f"{self.workdir.metrics} can't be written ({error}); the training goes on", stacklevel=2)
        if not self._are_weights_finite(epoch):
            return
        if score is None and DECIDES in logs:
            warnings.warn(
                f"{self.monitor} is not among the figures ({', '.join(sorted(of_validation))}): the newest weights are kept",
                stacklevel=2,
            )
        if score is None and self._best is not None:
            return  # These weights were not measured, and better ones may be there.
        if score is None or self._best is None or score >= self._best:
            self.workdir.save_weights(self.trained.network.submodels.weights_model)
            self._best = None if score is None else float(score)

    def _are_weights_finite(self, epoch: int) -> bool:
        """Tells whether all weights are finite; where not, ends the training with a warning."""
        bad = path_of_nonfinite(self.trained.network.submodels.weights_model.variables)
        if bad is not None:
            warnings.warn(
                f"{bad} is not finite after epoch {epoch + 1}, so the training ends, and {self.workdir.weights.name} stays as it was: clip "
                "gradients (global_clipnorm=5.0) or lower the rate",
                stacklevel=3,
            )
            self.model.stop_training = True
        return bad is None


def _row_of_figures(logs: dict[str, Any]) -> dict[str, float]:
    """Returns the logs of a validation with the names that rows of an evaluation have: AP without `val_`, losses with it."""
    named = (*FIGURES, *(f"{OF_MASKS}{name}" for name in FIGURES))
    row = {}
    for name, value in _as_numbers(logs).items():
        bare = name.removeprefix(PREFIX)
        is_figure = bare in named or bare.removeprefix(OF_MASKS).split("@")[0] in ("AP", "AP50", "AP75", "AR")
        row[bare if is_figure else name] = value
    return row


def _as_numbers(logs: dict[str, Any]) -> dict[str, float]:
    """Returns the logs that are numbers: callbacks of others may add anything."""
    numbers = {}
    for name, value in logs.items():
        with suppress(TypeError, ValueError):
            numbers[name] = float(value)
    return numbers


def _is_loss(name: str) -> bool:
    return name.removeprefix(PREFIX).startswith(("loss", "rpn_", "roi_"))


def _steps_taken(model: TrainableDetector) -> int:
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))
