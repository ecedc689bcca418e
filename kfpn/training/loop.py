"""The loop: steps, and between them metrics, checkpoints and evaluations, until the last step or a signal."""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.run import Config
from kfpn.runs.checkpoint import Checkpoints, Progress
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.worker_stubs import NoReport
from kfpn.training.interrupt import Interrupted, Interruption
from kfpn.training.nonfinite.policy import Faults
from kfpn.training.nonfinite.recorder import Recorder
from kfpn.training.optimizer import Optimizer
from kfpn.training.progress import Report, say


class Loop:
    """Trains from where `progress` is to the last step.

    Args:
        config: the run's configuration.
        workdir: where everything is kept.
        weights_model: whose weights are saved.
        optimizer: for the averaged weights.
        step: from `build_train_step`.
        checkpoints: of the same variables.
        progress: restored; is kept up to date.
        evaluate: (step) -> COCO figures, called with the averaged weights in place; None: no validation data.
        cluster: the processes that train together, None for this one alone. The chief evaluates, the others wait.
        recorder: keeps what the first step without a finite loss was made of; None: nothing is kept.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        weights_model: keras.Model,
        optimizer: Optimizer,
        step: Callable[[Any], dict[str, tf.Tensor]],
        checkpoints: Checkpoints,
        progress: Progress,
        evaluate: Callable[[int], dict[str, Any]] | None,
        cluster: Cluster | None = None,
        recorder: Recorder | None = None,
    ):
        self.config = config
        self.workdir = workdir
        self.weights_model = weights_model
        self.optimizer = optimizer
        self.step = step
        self.checkpoints = checkpoints
        self.progress = progress
        self.evaluate = evaluate
        self.cluster = cluster or Cluster()
        self.faults = Faults(config.on_nan, optimizer, recorder, workdir.checkpoints)
        self._pending: list[dict[str, tf.Tensor]] = []
        self._pending_seconds = 0.0
        self._clock = 0.0
        self._timed = 0
        self._unsaved: OSError | None = None

    def run(self, open_at: Callable[[int], Iterator[Any]]) -> None:
        """Runs to the last step.

        Args:
            open_at: (step) -> the distributed batches from that step on.

        Raises:
            ValueError: naming the first loss that is not finite and its step, or an image that can no longer be read.
            SystemExit: after a signal, when all is saved.
        """
        report: Any = NoReport()
        if self.cluster.is_chief:
            report = Report(self.workdir, self.progress.step, self.config.steps)
        self._clock = time.monotonic()
        with Interruption() as stop:
            try:
                self._run(open_at, report, stop)
            except Interrupted:
                self._leave(stop)
            except tf.errors.OpError as error:
                # Memory that ran out here is no other worker's doing.
                if not self.cluster.several or isinstance(error, tf.errors.ResourceExhaustedError):
                    raise
                raise self.cluster.lost(error) from error
            finally:
                report.close()

    def _run(self, open_at: Callable[[int], Iterator[Any]], report: Report, stop: Interruption) -> None:
        config, progress = self.config, self.progress
        batches = open_at(progress.step)
        while True:
            if self.faults.step is not None:
                self._answer_fault(report)
                batches = open_at(progress.step)
            if self._due(config.eval_every) and progress.evaluated < progress.step:
                self._evaluate_once(report, stop)
            if self._asked(stop):
                self._leave(stop)
            if progress.step >= config.steps:
                self._require_saved()
                return
            self._pending.append(self.step(self._next(batches)))
            progress.step += 1
            report.advance_to(progress.step)
            if self._due(config.log_every):
                self._log(report)
            # Saved before an evaluation as well, which may take long and be cut short.
            if stop.signal is None and (self._due(config.checkpoint_every) or self._due(config.eval_every)):
                self._save()

    def _asked(self, stop: Interruption) -> bool:
        """Whether a signal came, to this process or to another worker's: all of them leave after the same step."""
        return self.cluster.any(stop.signal is not None)

    def _evaluate_once(self, report: Report, stop: Interruption) -> None:
        if not self.cluster.is_chief:
            self.progress.evaluated = self.progress.step
            return  # and waits in the next `_asked` for the chief
        try:
            with stop.at_once():
                self._evaluate(report)
        except Interrupted:
            if not self.cluster.several:
                raise

    def _next(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches)
        except ValueError:  # an image changed since the data set was opened; the steps before it are not to be lost
            if self.progress.step:
                self._save()
            raise

    def _due(self, every: int) -> bool:
        step = self.progress.step
        return step > 0 and (step % every == 0 or step == self.config.steps)

    def _log(self, report: Report) -> None:
        self._settle()
        if self.faults.step is not None:
            return  # these steps are not done
        rows = self.progress.pending
        means = {name: _mean([row[name] for row in rows]) for name in rows[-1] if name != "skipped"}
        means["lr"] = rows[-1]["lr"]
        if skipped := sum(row.get("skipped", 0.0) for row in rows):
            means["skipped"] = skipped
        rate = self._timed * self.config.batch_size / max(self._pending_seconds, 1e-9)
        self.progress.logged = {"step": self.progress.step, **means, "images_per_second": rate}
        report.train_row({**self.progress.logged, "seconds": self.progress.seconds})
        self.progress.pending, self._pending_seconds, self._timed = [], 0.0, 0

    def _settle(self) -> None:
        """Waits for the device, takes the time, and fetches the metrics of the steps since the last call."""
        rows = [{name: float(value) for name, value in row.items()} for row in self._pending]
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._pending_seconds += now - self._clock
        self._clock = now
        first = self.progress.step - len(rows) + 1
        for step, row in enumerate(rows, first):
            if self.faults.halts_at(step, row):  # the state is the one before it
                self.progress.step = step - 1
                rows = rows[: step - first]
                break
        # A checkpoint holds them: the next row is the same mean after a restart.
        self.progress.pending.extend(rows)
        self._pending = []
        self._timed += len(rows)

    def _answer_fault(self, report: Report) -> None:
        """Ends the run at a step that was refused, or goes back to before it."""
        error = self.faults.answer(self.progress, self.cluster.is_chief)
        if error is None:
            report.advance_to(self.progress.step)
            self._clock = time.monotonic()
            return
        if self.progress.step:
            self._keep()
        self.cluster.leave()  # once the chief has recorded
        raise error

    def _save(self) -> None:
        self._settle()
        self._keep()
        # Writing took time in which no image was trained on.
        self._clock = time.monotonic()

    def _keep(self) -> None:
        """Writes a checkpoint; where the disk is full the run goes on, with those it has, and tries again at the next."""
        try:
            self.checkpoints.save(self.progress)
            self._unsaved = None
        except OSError as error:
            self._unsaved = error
            warnings.warn(
                f"no checkpoint at step {self.progress.step}: {error}; the run goes on and tries again at the next. "
                f"Kept are those of steps {self.checkpoints.steps()}",
                stacklevel=2,
            )

    def _require_saved(self) -> None:
        if self._unsaved is not None:
            self._save()
        if self._unsaved is not None:
            raise ValueError(
                f"{self.workdir.path} must have room for the checkpoint of step {self.progress.step}, got: {self._unsaved}. "
                f"Make room and run the same command to go on from step {max(self.checkpoints.steps(), default=0)}"
            ) from self._unsaved

    def _evaluate(self, report: Report) -> None:
        progress = self.progress
        with self.optimizer.averaged_weights():
            figures = self.evaluate(progress.step) if self.evaluate else {}
            better = not progress.best_step or _score(figures) > _score(progress.best) or not figures
            if better:
                try:
                    self.workdir.save_weights(self.weights_model)
                except OSError as error:
                    warnings.warn(f"evaluation of step {progress.step} is lost: {error}", stacklevel=2)
                    self._lost_evaluation(error)
                    return
        if better:
            progress.best_step, progress.best = progress.step, figures
        progress.evaluated, progress.last = progress.step, figures
        if figures:
            report.evaluation_row({"step": progress.step, **figures, "seconds": progress.seconds})
        self._keep()
        self._clock = time.monotonic()

    def _lost_evaluation(self, error: OSError) -> None:
        # It is not counted as done: a restart evaluates again, and final.json never has figures of weights not kept.
        self._clock = time.monotonic()
        if self.progress.step >= self.config.steps:
            raise ValueError(
                f"{self.workdir.path} must have room for the weights of step {self.progress.step}, got: {error}. "
                "Make room and run the same command"
            ) from error

    def _leave(self, stop: Interruption) -> None:
        """Saves and exits."""
        if self.progress.step:
            self._save()
            self._require_saved()
        if self.progress.step and not self.progress.best_step:  # nothing evaluated yet: the latest weights are the best
            with self.optimizer.averaged_weights():
                self.workdir.save_weights(self.weights_model)
        self.cluster.leave()  # once the chief has saved
        say(f"saved at step {self.progress.step} of {self.config.steps}; run the same command to go on")
        raise SystemExit(stop.exit_code)


def _score(figures: dict[str, Any]) -> float:
    score = figures.get("AP")
    return -1.0 if score is None else score


def _mean(values: list[float]) -> float:
    # A step skipped in mixed_float16 has an infinite gradient norm.
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
