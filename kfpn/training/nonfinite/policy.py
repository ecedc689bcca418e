"""Decides about steps without a finite loss: the run halts at the first, records it, then stops or goes on without it."""

import warnings
from pathlib import Path

from kfpn.runs.checkpoint import Progress
from kfpn.training.nonfinite.recorder import Recorder, nonfinite_message
from kfpn.training.optimizer import Optimizer

MAX_SKIPPED_IN_A_ROW = 20
"""After so many steps in a row without a finite loss the run stops: the weights are then the likely cause, not the data."""


class NonFinitePolicy:
    """Decides about the steps of one run that were refused because they had no finite loss.

    The run halts at such a step if it has to stop there, or if no such step was recorded yet: only a halt keeps the
    state from before the step on the device. Later ones are skipped.

    Args:
        on_nan: `stop` or `skip`.
        optimizer: the run's, which refuses the steps.
        recorder: keeps the first such step; None: nothing is kept.
        checkpoints: the folder of checkpoints, for messages.

    Attributes:
        halted_at: int, the step that the run halted at, counted from 1; None: the run is not halted.
    """

    def __init__(self, on_nan: str, optimizer: Optimizer, recorder: Recorder | None, checkpoints: Path):
        self.on_nan = on_nan
        self.optimizer = optimizer
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.halted_at: int | None = None
        self._row: dict[str, float] = {}
        self._skipped_in_a_row = 0
        self._halts = False
        self._set_halts(on_nan == "stop" or (recorder is not None and not recorder.done))

    def halts_at(self, step: int, row: dict[str, float]) -> bool:
        """Looks at the metrics of the next step and tells whether the run halts at it.

        After True, the optimizer refuses this step and all later ones, until `handle_halt` is called.

        Args:
            step: counted from 1.
            row: metrics of the step; `skipped` is removed from it where it is 0.

        Raises:
            ValueError: for the last of `MAX_SKIPPED_IN_A_ROW` skipped steps in a row.
        """
        if not row.get("skipped"):
            row.pop("skipped", None)
            self._skipped_in_a_row = 0
            return False
        if self._halts:
            self.halted_at, self._row = step, row
            return True
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise ValueError(
                f"{nonfinite_message(step, row)}, and {self._skipped_in_a_row - 1} steps before it: skipping does not help. "
                f"The checkpoints in {self.checkpoints} hold finite weights"
            )
        warnings.warn(f"{nonfinite_message(step, row)}: this step is skipped", stacklevel=2)
        return False

    def handle_halt(self, progress: Progress, chief: bool) -> ValueError | None:
        """Records the step that the run halted at, and ends the halt.

        Args:
            progress: of the run before that step.
            chief: whether this process is the one that writes.

        Returns:
            The error to end the run with; None: the run goes on without the step.

        Raises:
            ValueError: if the run is not halted.
        """
        if self.halted_at is None:
            raise ValueError(
                "halted_at must be a step, got None: call handle_halt only after halts_at has returned True"
            )
        message = nonfinite_message(self.halted_at, self._row)
        if self.recorder is not None and chief:
            message = f"{message}; {self.recorder.record(self.halted_at, self._row, progress)}"
        self.halted_at = None
        if self.on_nan == "skip":
            warnings.warn(f"{message}. This step is skipped", stacklevel=2)
            self._set_halts(False)
            return None
        return ValueError(
            f"{message}. The checkpoints in {self.checkpoints} are from before it: --on-nan skip goes on from them "
            "without this step. A lower optimizer.learning_rate, a longer warm-up or optimizer.clip_norm may help (with "
            "another --workdir)"
        )

    def _set_halts(self, halts: bool) -> None:
        self._halts = halts
        self.optimizer.halt_at_nonfinite(halts)
