"""What a run does about steps without a finite loss: it halts at the first, keeps it, then stops or goes on without it."""

import warnings
from pathlib import Path

from kfpn.runs.checkpoint import Progress
from kfpn.training.nonfinite.recorder import Recorder, not_finite
from kfpn.training.optimizer import Optimizer

SKIPPED_AT_MOST = 20
"""So many steps in a row without a finite loss, and weights that were kept must be at fault, not the data."""


class Faults:
    """Decides about the refused steps of one run.

    A run halts at a fault if it is to stop there, or if none was recorded yet: only then does the device hold the state
    from before it. Later ones cost their own step.

    Args:
        on_nan: `stop` or `skip`.
        optimizer: the run's, which refuses steps.
        recorder: keeps what the first fault was made of; None: nothing is kept.
        checkpoints: their folder, to tell of.

    Attributes:
        step: int, of the fault that the run halted at, counted from 1; None: it is not halted.
    """

    def __init__(self, on_nan: str, optimizer: Optimizer, recorder: Recorder | None, checkpoints: Path):
        self.on_nan = on_nan
        self.optimizer = optimizer
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.step: int | None = None
        self._row: dict[str, float] = {}
        self._in_a_row = 0
        self._halts = False
        self._halt(on_nan == "stop" or (recorder is not None and not recorder.done))

    def halts_at(self, step: int, row: dict[str, float]) -> bool:
        """Looks at the metrics of the next step; True: it and all after it were refused, up to `answer`.

        Args:
            step: counted from 1.
            row: its metrics, without `skipped` afterwards where that is 0.

        Raises:
            ValueError: for the last of `SKIPPED_AT_MOST` faults in a row.
        """
        if not row.get("skipped"):
            row.pop("skipped", None)
            self._in_a_row = 0
            return False
        if self._halts:
            self.step, self._row = step, row
            return True
        self._in_a_row += 1
        if self._in_a_row >= SKIPPED_AT_MOST:
            raise ValueError(
                f"{not_finite(step, row)}, and {self._in_a_row - 1} steps before it: skipping does not help. The "
                f"checkpoints in {self.checkpoints} hold finite weights"
            )
        warnings.warn(f"{not_finite(step, row)}: this step is skipped", stacklevel=2)
        return False

    def answer(self, progress: Progress, chief: bool) -> ValueError | None:
        """Keeps batch and state of the step that the run halted at; returns the error to end with, or None to go on.

        Args:
            progress: of the run before that step.
            chief: whether this process is the one that writes.
        """
        assert self.step is not None
        message = not_finite(self.step, self._row)
        if self.recorder is not None and chief:
            message = f"{message}; {self.recorder.record(self.step, self._row, progress)}"
        self.step = None
        if self.on_nan == "skip":
            warnings.warn(f"{message}. This step is skipped", stacklevel=2)
            self._halt(False)
            return None
        return ValueError(
            f"{message}. The checkpoints in {self.checkpoints} are from before it: --on-nan skip goes on from them "
            "without this step. A lower optimizer.learning_rate, a longer warm-up or optimizer.clip_norm may help (with "
            "another --workdir)"
        )

    def _halt(self, halt: bool) -> None:
        self._halts = halt
        self.optimizer.halt_at_fault(halt)
