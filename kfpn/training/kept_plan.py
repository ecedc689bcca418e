"""Keeps the plans of a run of given minutes in a file of its work directory, for restarts."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfpn.config.run import Config, to_dict
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.checkpoint import Progress
from kfpn.runs.other_options import MAY_DIFFER
from kfpn.training.progress import warn_on_write_error
from kfpn.training.step_plan import Decision


class KeptPlan:
    """Reads and writes the file. What it holds counts for runs of the same options alone.

    Args:
        path: of the file.
        config: the run's.
    """

    def __init__(self, path: Path, config: Config):
        self.path = path
        fields = {name: value for name, value in to_dict(config).items() if name not in (*MAY_DIFFER, "steps")}
        self._options = zlib.crc32(json.dumps(fields, sort_keys=True).encode())

    def read(self, progress: Progress) -> tuple[list[Decision], dict[str, float], float]:
        """Returns what is known about a run that goes on from a checkpoint.

        The file may know decisions that were made after the checkpoint: they are made again at their steps.

        Args:
            progress: of the checkpoint.

        Returns:
            The decisions, oldest first; name -> seconds that were measured; and the seconds that the run has taken.
        """
        saved = [_decision(values) for values in progress.decisions]
        kept, costs, spent = self._read_file()
        if kept[: len(saved)] != saved:
            kept = saved  # The file is older than the checkpoint, or of another run.
        return kept, costs, max(spent, progress.spent)

    def write(self, decisions: Sequence[Decision], costs: dict[str, float], spent: float) -> None:
        """Writes the file aside and renames it; where there is no room the run goes on, and a restart measures anew."""
        content = {
            "options": self._options,
            "spent": spent,
            "costs": costs,
            "decisions": [asdict(decision) for decision in decisions],
        }
        with warn_on_write_error(self.path):
            write_json(self.path, content)

    def _read_file(self) -> tuple[list[Decision], dict[str, float], float]:
        try:
            content: Any = read_json(self.path)
            if content["options"] != self._options:
                return [], {}, 0.0
            costs = {str(name): float(value) for name, value in content["costs"].items()}
            return [_decision(values) for values in content["decisions"]], costs, float(content["spent"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return [], {}, 0.0


def _decision(values: dict[str, Any]) -> Decision:
    decision = Decision(**values)
    if not 0 <= decision.step < decision.last:
        raise ValueError(f"step must be below last, got {decision}")
    return decision
