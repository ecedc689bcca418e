"""Holds what evaluations, checkpoints and the end of a run take, as estimated at first and then as measured."""

from kfpn.training.evaluation_cost import EvaluationCost
from kfpn.training.step_plan import Costs

LEARNED = 0.005
"""A new plan is made where an evaluation took longer or shorter than expected by this share of the run's time."""
UNKNOWN_SECONDS = 1.0
"""The cost of a checkpoint until one was written, and of an evaluation without validation data, which saves the weights alone."""
EXIT_SECONDS = 1.0
EXIT_BUILDINGS = 0.75
"""final.json, the last curves and the end of the process take `EXIT_SECONDS` and this multiple of the time to build a detector, which
tells how fast the machine is."""
RECALL_TRACING, RECALL_DETECTING = 0.5, 0.6
"""The recall of the proposals takes about these shares of the tracing and of the detection of all images: it runs one stage of two."""


class RunCosts:
    """Holds seconds by name: `evaluation` and `checkpoint`, and for the recall `building`, `tracing` and `detecting`.

    Args:
        known: from an earlier start of the run; {} at first.
        seconds: that the run may take.

    Attributes:
        known: name -> seconds.
        learned: whether an evaluation took another time than expected since the last plan.
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
        """Takes the estimate that the detection of a few images has given."""
        self.known |= {"evaluation": cost.evaluation, "detecting": cost.detecting, "tracing": cost.tracing}
        self.to_trace = cost.to_trace

    def measure(self, name: str, seconds: float) -> None:
        """Takes the seconds that an evaluation or a checkpoint took.

        Args:
            name: `evaluation` or `checkpoint`.
            seconds: measured.
        """
        before = self.known.get(name, 0.0)
        if name == "evaluation":
            # Graphs are made once. Their estimate may be too long, so at least half of the time is that of the evaluation.
            seconds, self.to_trace = max(seconds - self.to_trace, 0.5 * seconds), 0.0
            self.learned |= abs(seconds - before) > LEARNED * self.seconds
            if "detecting" in self.known:  # The recall of the proposals needs the same images.
                self.known["detecting"] *= seconds / max(before, 1e-9)
        self.known[name] = seconds

    @property
    def evaluation(self) -> float:
        """Seconds of an evaluation."""
        return self.known.get("evaluation", UNKNOWN_SECONDS)

    @property
    def ending(self) -> float:
        """Seconds from the last evaluation to the exit. The recall builds the first stage anew, traces it, and runs it on all images."""
        building, tracing, detecting = (self.known.get(name, 0.0) for name in ("building", "tracing", "detecting"))
        recall = building + RECALL_TRACING * tracing + RECALL_DETECTING * detecting if self.has_recall else 0.0
        return recall + EXIT_BUILDINGS * building + EXIT_SECONDS

    def with_steps(self, step: float, compilations: float) -> Costs:
        """Returns all costs, with those of a step and of the compilations to come."""
        checkpoint = self.known.get("checkpoint", UNKNOWN_SECONDS)
        return Costs(step, self.evaluation, checkpoint, self.ending, compilations + self.to_trace)
