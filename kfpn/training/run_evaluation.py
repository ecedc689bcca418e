"""Evaluates a run between its steps: measures the weights, keeps the best, and says where nothing can be measured."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras

from kfpn.runs.checkpoint import Progress
from kfpn.runs.workdir import Workdir
from kfpn.training.best_weights import BEST_BY, is_better, measured_score
from kfpn.training.optimizer import Optimizer
from kfpn.training.pace import Pace


class EvaluatedRun(Protocol):
    """What an evaluation needs of `kfpn.training.loop.Run`."""

    @property
    def workdir(self) -> Workdir:
        """The run's work directory."""

    @property
    def weights_model(self) -> keras.Model:
        """The model whose weights are saved."""

    @property
    def optimizer(self) -> Optimizer:
        """Holds the averaged weights."""

    @property
    def progress(self) -> Progress:
        """The run's."""

    @property
    def evaluate(self) -> Callable[[int], dict[str, Any]] | None:
        """Function (step) -> figures; None: there is no validation data."""

    @property
    def keep_evaluation(self) -> Callable[[], None] | None:
        """Is called when the weights that `evaluate` has measured are saved; None: nothing else is kept of an evaluation."""


class RunEvaluation:
    """Measures the weights of a run, and keeps those that are the best so far.

    Args:
        run: the run.
        pace: says which step is the last, and whether there is time for an evaluation.
        write_checkpoint: writes a checkpoint of the run's progress.
        report: takes the row of an evaluation.
    """

    def __init__(
        self,
        run: EvaluatedRun,
        pace: Pace,
        write_checkpoint: Callable[[], None],
        report: Callable[[dict[str, Any]], None],
    ):
        self.run = run
        self.pace = pace
        self.write_checkpoint = write_checkpoint
        self.report = report
        self._warned = False

    def measure(self) -> None:
        """Evaluates the averaged weights, saves them if they are the best, and writes a checkpoint.

        Raises:
            ValueError: if the weights of the last step can't be saved.
        """
        run, progress = self.run, self.run.progress
        with run.optimizer.averaged_weights():
            figures: dict[str, Any] = {}
            # Weights without figures replace those that are kept, so once there are figures all later weights need some.
            if run.evaluate and (progress.best or self.pace.fits_evaluation(progress.step)):
                figures = run.evaluate(progress.step)
            better = not progress.best_step or is_better(figures, progress.best)
            if better:
                try:
                    run.workdir.save_weights(run.weights_model)
                except OSError as error:
                    self._discard(error)
                    return
        if better:
            progress.best_step, progress.best, progress.stale = progress.step, figures, 0
            if figures and run.keep_evaluation:
                run.keep_evaluation()
        else:
            progress.stale += 1
        progress.evaluated, progress.last = progress.step, figures
        if figures:
            self._warn_without_measure(figures)
            self.report({"step": progress.step, **figures, "seconds": progress.seconds, **self.pace.figures()})
        self.write_checkpoint()

    def _warn_without_measure(self, figures: Mapping[str, Any]) -> None:
        """Warns once that nothing tells which weights are the best."""
        progress = self.run.progress
        if not self._warned and measured_score(figures) is None:
            self._warned = True
            kept = f"the best are those of step {progress.best_step}"
            if measured_score(progress.best) is None:
                kept = "the last weights are kept, not the best"
            warnings.warn(
                f"{figures.get(BEST_BY, 'AP')} can't be measured at step {progress.step}: the validation data has no box that counts; {kept}",
                stacklevel=3,
            )

    def _discard(self, error: OSError) -> None:
        """Warns that an evaluation does not count, because the weights that it measured could not be saved.

        A restart evaluates again, and final.json never has the figures of weights that were not kept.
        """
        step = self.run.progress.step
        warnings.warn(f"evaluation of step {step} is lost: {error}", stacklevel=3)
        if step >= self.pace.last:
            raise ValueError(
                f"{self.run.workdir.path} must have room for the weights of step {step}, got: {error}. "
                "Make room and run the same command"
            ) from error
