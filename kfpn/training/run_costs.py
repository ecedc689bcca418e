"""Holds what evaluations, checkpoints and the end of a run take, as estimated at first and then as measured."""

from kfpn.training.evaluation_cost import EvaluationCost
from kfpn.training.step_plan import Costs

LEARNED = 0.005
"""An evaluation that took more or less by this share of the run's time than was thought is worth another plan."""
UNKNOWN_SECONDS = 1.0
"""What a checkpoint is taken to cost until one was written; evaluations without validation data save weights alone."""
EXIT_SECONDS = 1.0
EXIT_BUILDINGS = 0.75
"""What final.json, the last curves and the end of the process take: so many seconds, and this multiple of the building of a detector,
which tells how fast the machine is."""
RECALL_TRACING, RECALL_DETECTING = 0.5, 0.6
"""The recall of the proposals takes about these shares of the graphs and of the detection of all images: it has one stage of two."""


class RunCosts:
    """Holds seconds by name: `evaluation` and `checkpoint`, and for the recall `building`, `tracing` and `detecting`.

    Args:
        known: from an earlier start of the run; {} at first.
        seconds: that the run may take.

    Attributes:
        known: name -> seconds.
        learned: whether an evaluation has told something new.
        has_recall: whether the recall of the proposals is measured at the end.
        to_trace: seconds that the next evaluation takes longer, because it makes graphs. A new start makes all of them.
    """

    def __init__(self, known: dict[str, float], seconds: float):
        self.known = known
        self.seconds = seconds
        self.learned = False
        self.has_recall = True
        self.to_trace = known.get("tracing", 0.0)

    def estimate(self, cost: EvaluationCost) -> None:
        """Takes what the detection of a few images has told."""
        self.known |= {"evaluation": cost.evaluation, "detecting": cost.detecting, "tracing": cost.tracing}
        self.to_trace = cost.to_trace

    def measure(self, name: str, seconds: float) -> None:
        """Takes what an evaluation or a checkpoint took."""
        before = self.known.get(name, 0.0)
        if name == "evaluation":
            # Graphs are made once; what was thought of them may be too much.
            seconds, self.to_trace = max(seconds - self.to_trace, 0.5 * seconds), 0.0
            self.learned |= abs(seconds - before) > LEARNED * self.seconds
            if "detecting" in self.known:  # The recall of the proposals looks at the same images.
                self.known["detecting"] *= seconds / max(before, 1e-9)
        self.known[name] = seconds

    @property
    def evaluation(self) -> float:
        """Seconds of an evaluation."""
        return self.known.get("evaluation", UNKNOWN_SECONDS)

    @property
    def ending(self) -> float:
        """Seconds from the last evaluation to the exit. The recall builds the first stage anew, traces it, and looks at all images."""
        building, tracing, detecting = (self.known.get(name, 0.0) for name in ("building", "tracing", "detecting"))
        recall = building + RECALL_TRACING * tracing + RECALL_DETECTING * detecting if self.has_recall else 0.0
        return recall + EXIT_BUILDINGS * building + EXIT_SECONDS

    def with_steps(self, step: float, compilations: float) -> Costs:
        """Returns all costs, with those of a step and of the compilations to come."""
        checkpoint = self.known.get("checkpoint", UNKNOWN_SECONDS)
        return Costs(step, self.evaluation, checkpoint, self.ending, compilations + self.to_trace)
