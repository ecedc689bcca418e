"""Says when a run of a given number of steps evaluates, saves and ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kfpn.config.run import Config


class Pace:
    """Paces a run of `config.steps` steps; `kfpn.training.time_budget.TimeBudget` paces one of `config.minutes`.

    Args:
        config: the run's.
    """

    def __init__(self, config: Config):
        self.config = config

    @property
    def last(self) -> int:
        """Number of the last step; where it is not known yet, one that is never reached."""
        return self.config.steps

    @property
    def last_is_known(self) -> bool:
        """Whether the last step is known."""
        return True

    def begin(self) -> None:
        """Begins to measure time: the first step of this start comes next."""

    def evaluates(self, step: int) -> bool:
        """Tells whether the run is evaluated after a step."""
        return step > 0 and (step == self.last or step % (self.config.eval_every or self.last) == 0)

    def saves(self, step: int) -> bool:
        """Tells whether a checkpoint is due after a step."""
        return step > 0 and (step == self.last or step % (self.config.checkpoint_every or self.last) == 0)

    def checks(self, step: int) -> bool:
        """Tells whether `decide` is to be called after a step; all workers get the same answer."""
        return False

    def decide(self, step: int) -> None:
        """Plans the steps to come anew, where that is due; the metrics of all steps so far must have been waited for."""

    @contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Measures what takes time between two steps, in a `with` block.

        Args:
            name: `evaluation` or `checkpoint`.
        """
        yield

    def keep(self) -> None:
        """Puts what a restart needs into the run's progress."""

    def note_time(self, at_once: bool = False) -> None:
        """Writes down how long the run took so far, so that a kill does not lose it.

        Args:
            at_once: also where that was done seconds ago.
        """

    def figures(self) -> dict[str, Any]:
        """Returns what rows of metrics say about the minutes of the run; {} where it has none."""
        return {}

    def seconds_left(self) -> float | None:
        """Returns the seconds that are left to the run; None: that is not known."""
        return None

    def fits_evaluation(self, step: int) -> bool:
        """Tells whether an evaluation takes less than the whole time of the run; if not, says that this step has none."""
        return True

    def fits_recall(self) -> bool:
        """Tells whether there is time for the recall of the proposals at the end."""
        return True
