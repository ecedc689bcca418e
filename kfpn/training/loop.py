"""Runs the training loop: steps, and between them metrics, checkpoints and evaluations, until the last step or a signal."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from kfpn.config.run import Config
from kfpn.data.out_of_memory import explained_memory
from kfpn.runs.checkpoint import Checkpoints, Progress
from kfpn.runs.workdir import Workdir
from kfpn.training.best_weights import BEST_BY
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.worker_stubs import SilentReport
from kfpn.training.interrupt import Interrupted, Interruption
from kfpn.training.nonfinite.policy import NonFinitePolicy
from kfpn.training.nonfinite.recorder import Recorder
from kfpn.training.optimizer import Optimizer
from kfpn.training.pace import Pace
from kfpn.training.progress import ProgressReport, say
from kfpn.training.run_evaluation import RunEvaluation
from kfpn.training.shared_stop import SharedStop
from kfpn.training.step_memory import remedy
from kfpn.training.step_metrics import StepMetrics


@dataclass(frozen=True)
class Run:
    """Holds everything that the loop trains with.

    Attributes:
        config: the run's configuration.
        workdir: the run's work directory.
        weights_model: the model whose weights are saved for inference.
        optimizer: holds the averaged weights.
        step: one training step, from `build_train_step`.
        checkpoints: of all variables of the run.
        progress: as it was restored; the loop keeps it up to date.
        evaluate: (step) -> COCO figures, called with the averaged weights in place; None: no validation data.
        keep_evaluation: is called when the weights that `evaluate` has measured are saved; None: nothing else is kept.
        cluster: the processes that train together. The chief evaluates and writes, the others wait.
        recorder: keeps the first step without a finite loss; None: nothing is kept.
        pace: says when the run evaluates, saves and ends; None: after the steps that `config` says.
    """

    config: Config
    workdir: Workdir
    weights_model: keras.Model
    optimizer: Optimizer
    step: Callable[[Any], dict[str, Any]]
    checkpoints: Checkpoints
    progress: Progress
    evaluate: Callable[[int], dict[str, Any]] | None = None
    keep_evaluation: Callable[[], None] | None = None
    cluster: Cluster = field(default_factory=Cluster)
    recorder: Recorder | None = None
    pace: Pace | None = None


class Loop:
    """Trains a run from where its progress is to its last step.

    Args:
        run: everything that the loop trains with.
    """

    def __init__(self, run: Run):
        config, workdir, progress = run.config, run.workdir, run.progress
        self.run = run
        self.progress = progress
        self.policy = NonFinitePolicy(config.on_nan, run.optimizer, run.recorder, workdir.checkpoints)
        self.metrics = StepMetrics(progress, config.batch_size)
        self.report: ProgressReport | SilentReport = SilentReport()
        if run.cluster.is_chief:
            self.report = ProgressReport(workdir, progress.step, config.steps)
        self.stop = SharedStop(run.cluster, run.optimizer)
        self.pace = run.pace or Pace(config)
        self.evaluation = RunEvaluation(run, self.pace, self._write_checkpoint, self.report.evaluation_row)
        self._unsaved: OSError | None = None
        self._show_plan()

    def train(self, open_batches: Callable[[int], Iterator[Any]]) -> None:
        """Trains to the last step.

        Args:
            open_batches: (step) -> the distributed batches from that step on.

        Raises:
            ValueError: naming the first loss that is not finite and its step, or an image that can no longer be read.
            SystemExit: after a signal, when all is saved.
        """
        cluster = self.run.cluster
        self.metrics.restart_clock()
        with Interruption() as stop:
            try:
                with explained_memory(self._describe_memory):
                    self._train(open_batches, stop)
            except Interrupted:
                self._save_and_exit(stop)
            except Exception as error:
                if not cluster.blames_worker(error):
                    raise
                raise cluster.lost(error) from error
            finally:
                self.report.close()

    def _train(self, open_batches: Callable[[int], Iterator[Any]], stop: Interruption) -> None:
        run, config, progress, pace = self.run, self.run.config, self.progress, self.pace
        batches = open_batches(progress.step)
        pace.begin()
        while True:
            if self.policy.halted_at is not None:
                self._handle_halt()
                batches = open_batches(progress.step)
            if pace.evaluates(progress.step) and progress.evaluated < progress.step:
                self._evaluate_on_chief(stop)
                self.stop.meet(stop)
            if self.stop.wanted(stop):
                self._save_and_exit(stop)
            if progress.step >= pace.last or self._has_lost_patience():
                self._require_saved()
                return
            if pace.checks(progress.step) and not self._plan():
                continue
            self.metrics.add(self.stop.step(run.step, self._next_batch(batches), stop))
            progress.step += 1
            self.report.advance_to(progress.step)
            if progress.step % config.log_every == 0 or progress.step == pace.last:
                self._log()
            # A checkpoint comes before an evaluation as well, because an evaluation may take long and be cut short.
            if (pace.saves(progress.step) or pace.evaluates(progress.step)) and not self.stop.saves_at_exit(stop):
                self._save()

    def _describe_memory(self) -> tuple[str, str]:
        """Returns what the loop was at, for memory that ran out between two steps or on a device that reports late."""
        return f"training at step {self.progress.step} with --batch-size {self.run.config.batch_size}", remedy(
            self.run.config
        )

    def _plan(self) -> bool:
        """Plans the steps to come, if that is due; returns False where the run was found to be halted."""
        self._fetch_metrics()
        if self.policy.halted_at is not None:
            return False
        self.pace.decide(self.progress.step)
        self._show_plan()
        self.metrics.restart_clock()
        return True

    def _show_plan(self) -> None:
        self.report.plan(self.pace.last if self.pace.last_is_known else None, self.pace.seconds_left)

    def _has_lost_patience(self) -> bool:
        """Tells whether AP has not risen for `patience` evaluations; all workers get the same answer."""
        patience, progress = self.run.config.patience, self.progress
        if patience is None or not self.pace.evaluates(progress.step):
            return False
        lost = self.run.cluster.any(progress.stale >= patience)
        if lost and self.run.cluster.is_chief:
            say(
                f"stops at step {progress.step}: {progress.stale} evaluations without a better {progress.last.get(BEST_BY, 'AP')} "
                f"(--patience {patience})"
            )
        return lost

    def _next_batch(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches)
        except ValueError:  # An image changed since the data set was opened: the steps before it must not be lost.
            if self.progress.step:
                self._save()
            raise

    def _log(self) -> None:
        self._fetch_metrics()
        if self.policy.halted_at is None:
            self.report.train_row(self.metrics.close_row() | self.pace.figures())
            self.pace.note_time()

    def _fetch_metrics(self) -> None:
        """Waits for the steps since the last call and looks at their metrics, up to a step that the run halts at."""
        rows = self.metrics.fetch()
        first = self.progress.step - len(rows) + 1
        for step, row in enumerate(rows, first):
            if self.policy.halts_at(step, row):  # The variables are as they were before this step.
                self.progress.step = step - 1
                rows = rows[: step - first]
                break
        self.metrics.keep(rows)

    def _handle_halt(self) -> None:
        """Ends the run at a step that was refused, or goes on without that step."""
        self.stop.forget()
        error = self.policy.handle_halt(self.progress, self.run.cluster.is_chief)
        if error is None:
            self.report.advance_to(self.progress.step)
            self.metrics.restart_clock()
            return
        if self.progress.step:
            self._write_checkpoint()
        self.run.cluster.leave()  # The others wait here until the chief has recorded the step.
        raise error

    def _save(self) -> None:
        self._fetch_metrics()
        with self.pace.pause("checkpoint"):
            self._write_checkpoint()
        self.metrics.restart_clock()

    def _write_checkpoint(self) -> None:
        """Writes a checkpoint; where the disk is full the run goes on, and tries again at the next checkpoint."""
        checkpoints = self.run.checkpoints
        self.pace.keep()
        try:
            checkpoints.save(self.progress)
            self._unsaved = None
        except OSError as error:
            self._unsaved = error
            warnings.warn(
                f"no checkpoint at step {self.progress.step}: {error}; the run goes on and tries again at the next. "
                f"Kept are those of steps {checkpoints.steps()}",
                stacklevel=2,
            )

    def _require_saved(self) -> None:
        if self._unsaved is not None:
            self._save()
        if self._unsaved is not None:
            raise ValueError(
                f"{self.run.workdir.path} must have room for the checkpoint of step {self.progress.step}, got: "
                f"{self._unsaved}. Make room and run the same command to go on from step "
                f"{max(self.run.checkpoints.steps(), default=0)}"
            ) from self._unsaved

    def _save_and_exit(self, stop: Interruption) -> None:
        progress = self.progress
        if progress.step:
            self._save()
            self._require_saved()
        if progress.step and not progress.best_step:  # Nothing was evaluated yet: the latest weights are the best.
            with self.run.optimizer.averaged_weights():
                self.run.workdir.save_weights(self.run.weights_model)
        self.run.cluster.leave()  # The others wait here until the chief has saved.
        self.pace.note_time(at_once=True)
        of = f" of {self.pace.last}" if self.pace.last_is_known else ""
        say(f"saved at step {progress.step}{of}; run the same command to go on")
        raise SystemExit(stop.exit_code)

    def _evaluate_on_chief(self, stop: Interruption) -> None:
        if not self.run.cluster.is_chief:
            self.progress.evaluated = self.progress.step
            return  # `SharedStop.meet` waits for the chief.
        try:
            with stop.at_once(), self.pace.pause("evaluation"):
                self.evaluation.measure()
            self.metrics.restart_clock()
        except Interrupted:
            if not self.run.cluster.several:
                raise
