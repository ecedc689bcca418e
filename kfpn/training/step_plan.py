"""Plans how many steps fit into the time of a run, and says which share of the run is done at each step."""

import math
from dataclasses import dataclass

FIRST_STEPS = 20
"""Steps, once they are compiled, after which the first plan is made."""
FEW_STEPS = 3
"""With fewer of them nothing is planned, unless time runs out."""
FIRST_SHARE = 0.1
"""Share of the time after which `FEW_STEPS` are enough for the first plan."""
LATEST_SHARE = 0.4
"""Share of the time after which the first plan is made from whatever there is."""
CORRECT_AT = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
"""Shares of the time at which the plan is corrected."""
DRIFT = 0.02
"""The plan is corrected as well where the run is ahead of it or behind it by this share of the time."""
CHECKS = 50
"""Number of checks, between a plan and its last step, whether a correction is due."""
EVALUATIONS = 0.1
"""At most this share of the time goes into evaluations before the last one."""
MOST_EVALUATIONS = 10
"""More of them than this tell nothing new."""
CHECKPOINTS = 0.02
"""At most this share of the time goes into checkpoints before the last one."""
MOST_CHECKPOINTS = 20
"""With as many, a restart repeats a twentieth of the run at most."""
FEW_PLANNED = 20
"""A plan of fewer steps is said to be short."""
WARMUP = 0.1
"""The warm-up takes at most this share of the steps that are planned first."""
LEAST_WARMUP_LEFT = 5
"""Steps over which a warm-up that is cut still rises, so that the rate does not jump."""


@dataclass(frozen=True)
class Decision:
    """Says how a run goes on from one of its steps, until the next decision.

    Attributes:
        step: the step after which it was made.
        share: the share of the run that was done then, 0..1. It counts from the first decision.
        last: the last step of the run, above `step`.
        evaluations: number of equal parts of the run; it is evaluated at the end of each.
        saves: the same for checkpoints.
        used: seconds that the run had taken at `step`.
        until: seconds that it is to have taken at `last`. Workers other than the chief know neither: both are 0 there.
    """

    step: int
    share: float
    last: int
    evaluations: int
    saves: int
    used: float = 0.0
    until: float = 0.0

    @property
    def steps_between_checks(self) -> int:
        """The number of steps between two checks whether a correction is due."""
        return max(1, (self.last - self.step) // CHECKS)

    def share_at(self, step: int) -> float:
        """Returns the share of the run that is done after a step, from `step` to `last`."""
        return self.share + (1.0 - self.share) * (step - self.step) / (self.last - self.step)

    def expected_at(self, step: int) -> float:
        """Returns the seconds that the run was expected to have taken after a step."""
        return self.used + (self.until - self.used) * (step - self.step) / (self.last - self.step)

    def completes_part(self, step: int, parts: int) -> bool:
        """Tells whether one of `parts` equal parts of the run ends with a step."""
        return math.floor(parts * self.share_at(step)) > math.floor(parts * self.share_at(step - 1))


@dataclass(frozen=True)
class Costs:
    """Holds what a run costs, in seconds, as it was measured or estimated.

    Attributes:
        step: one step, once it is compiled.
        evaluation: one evaluation, with the saving of the weights.
        checkpoint: one checkpoint.
        ending: what comes after the last evaluation, up to the exit.
        compilations: all that are still to come, of training steps and of an evaluation.
    """

    step: float
    evaluation: float
    checkpoint: float
    ending: float
    compilations: float = 0.0


@dataclass(frozen=True)
class TimeLimit:
    """Says what a run may take.

    Attributes:
        seconds: from the command's start to its exit.
        eval_every: steps between evaluations; None: `EVALUATIONS` decides.
        checkpoint_every: steps between checkpoints; None: `CHECKPOINTS` decides.
    """

    seconds: float
    eval_every: int | None = None
    checkpoint_every: int | None = None


def plan_steps(limit: TimeLimit, step: int, before: Decision | None, used: float, costs: Costs) -> Decision:
    """Decides how many steps still fit into the time.

    Args:
        limit: of the run.
        step: the number of steps taken.
        before: the decision that holds so far; None: there was none, and the share that is done counts from here.
        used: seconds that the run has taken.
        costs: as far as they are known.

    Returns:
        The decision; at least one step is left in it, so that the learning rate reaches its end.
    """
    share = 0.0 if before is None else before.share_at(step)
    pause = costs.evaluation + costs.checkpoint  # A checkpoint is written after each evaluation.
    evaluations = saves = 1  # Where the options say the steps, the last evaluation alone follows from the parts.
    if limit.eval_every is None:
        evaluations = _parts(EVALUATIONS * limit.seconds / max(pause, 1e-9), MOST_EVALUATIONS)
        evaluations = _steady(evaluations, before.evaluations if before else None)
    if limit.checkpoint_every is None:
        saves = _parts(CHECKPOINTS * limit.seconds / max(costs.checkpoint, 1e-9), MOST_CHECKPOINTS)
        saves = _steady(saves, before.saves if before else None)
    until = limit.seconds - costs.ending - pause
    between = _to_come(evaluations, share) * pause + _to_come(saves, share) * costs.checkpoint
    each = costs.step
    each += 0.0 if limit.eval_every is None else pause / limit.eval_every
    each += 0.0 if limit.checkpoint_every is None else costs.checkpoint / limit.checkpoint_every
    left = until - used - costs.compilations - between
    last = step + max(1, math.floor(left / max(each, 1e-9)))
    return Decision(step, share, last, evaluations, saves, used, max(until, used))


def first_plan_is_due(used: float, steps: int) -> bool:
    """Tells whether the first plan can be made.

    Args:
        used: share of the time that has passed.
        steps: number of steps that were measured.
    """
    if steps == 0:  # A compilation says nothing about the next step.
        return used >= 1.0
    return steps >= FIRST_STEPS or (steps >= FEW_STEPS and used >= FIRST_SHARE) or used >= LATEST_SHARE


def correction_is_due(plan: Decision, step: int, used: float, seconds: float) -> bool:
    """Tells whether a plan is to be corrected: at some shares of the time, and where the run is off.

    Args:
        plan: the one that holds.
        step: the number of steps taken.
        used: seconds that the run has taken.
        seconds: that it may take.
    """
    expected = plan.expected_at(step)
    passed = any(plan.used < share * seconds <= max(used, expected) for share in CORRECT_AT)
    return passed or abs(used - expected) > DRIFT * seconds


def warmup_end(first: Decision, steps: int) -> int:
    """Returns the last step of the warm-up, which the first decision may cut.

    Args:
        first: the first decision of the run.
        steps: number of steps of the warm-up, as the options say.
    """
    most = max(math.ceil(WARMUP * first.last), first.step + LEAST_WARMUP_LEFT)
    return steps if steps <= max(first.step, most) else min(most, first.last)


def plan_lines(limit: TimeLimit, plan: Decision, costs: Costs) -> list[str]:
    """Returns what is said about the first plan of a run: one line, or two where the time is short.

    Args:
        limit: of the run.
        plan: the first one.
        costs: that it was made from.
    """
    minutes, pauses = f"--minutes {limit.seconds / 60.0:g}", costs.evaluation + costs.ending
    lines = [
        f"{minutes}: {plan.last} steps are planned, {costs.step:.2g} s each; an evaluation takes about {costs.evaluation:.0f} s, the "
        f"end of the run {costs.ending:.0f} s"
    ]
    if plan.last - plan.step < FEW_PLANNED or pauses > 0.5 * limit.seconds:
        lines.append(
            f"{minutes} is short: of {limit.seconds:.0f} s {plan.used:.0f} s have passed, and the last evaluation and the end of the "
            f"run take about {pauses:.0f} s. The weights of {plan.last} steps are kept"
        )
    return lines


def _parts(fits: float, most: int) -> int:
    return 1 + min(most, math.floor(fits))


def _steady(parts: int, before: int | None) -> int:
    """Returns the number of parts of the decision before, unless that takes too long or twice as many fit."""
    return before if before and before <= parts < 2 * before else parts


def _to_come(parts: int, share: float) -> int:
    """Returns how many parts end after a share of the run, the last one not counted."""
    return parts - 1 - math.floor(parts * share)
