"""Keeps the plans of a run of given minutes in a file of its work directory, for restarts."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kfpn.config.run import Config, from_dict, to_dict
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.checkpoint import Progress
from kfpn.runs.other_options import compare_configs
from kfpn.training.progress import warn_on_write_error
from kfpn.training.step_plan import Decision


@dataclass
class KeptTimes:
    """Holds what a restart needs to know.

    Attributes:
        decisions: oldest first.
        checked: the last step after which the run asked whether a decision is due. Up to it there are no other decisions.
        costs: name -> seconds, see `kfpn.training.run_costs.RunCosts`.
        spent: seconds that the run has taken.
    """

    decisions: list[Decision] = field(default_factory=list)
    checked: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    spent: float = 0.0


class KeptPlan:
    """Reads and writes the file. A run with other options, where these act on the weights, does not take what it holds.

    Args:
        path: of the file.
        config: the run's.
    """

    def __init__(self, path: Path, config: Config):
        self.path = path
        self._options = to_dict(config)

    def read(self, progress: Progress) -> KeptTimes:
        """Returns what is known about a run that goes on from a checkpoint.

        The file may know decisions that were made after the checkpoint: they are made again at their steps.

        Args:
            progress: of the checkpoint.
        """
        saved = [_decision(values) for values in progress.decisions]
        kept = self._read_file()
        if kept.decisions[: len(saved)] != saved:  # The file is older than the checkpoint, or of another run.
            kept.decisions = saved
        kept.checked = max(kept.checked, *(decision.step for decision in kept.decisions), 0)
        kept.spent = max(kept.spent, progress.spent)
        return kept

    def write(self, times: KeptTimes) -> None:
        """Writes the file aside and renames it; where there is no room the run goes on, and a restart measures anew."""
        with warn_on_write_error(self.path):
            write_json(self.path, {"options": self._options, **asdict(times)})

    def _read_file(self) -> KeptTimes:
        try:
            content: Any = read_json(self.path)
            options = to_dict(from_dict(Config, content["options"]))
            if compare_configs(options, self._options):
                return KeptTimes()
            costs = {str(name): float(value) for name, value in content["costs"].items()}
            decisions = [_decision(values) for values in content["decisions"]]
            return KeptTimes(decisions, int(content["checked"]), costs, float(content["spent"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return KeptTimes()


def _decision(values: dict[str, Any]) -> Decision:
    decision = Decision(**values)
    if not 0 <= decision.step < decision.last:
        raise ValueError(f"step must be below last, got {decision}")
    return decision
