"""Paces a run of a given number of minutes: it measures what steps and pauses take, plans its steps, and keeps each plan."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from kfpn.config.run import Config
from kfpn.runs.checkpoint import Progress
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.evaluation_cost import EvaluationCost
from kfpn.training.kept_plan import KeptPlan, KeptTimes
from kfpn.training.pace import Pace
from kfpn.training.progress import say, warn_on_write_error
from kfpn.training.run_costs import RunCosts
from kfpn.training.step_clock import StepClock
from kfpn.training.step_plan import (
    FEW_STEPS,
    LATEST_SHARE,
    Decision,
    TimeLimit,
    correction_is_due,
    first_plan_is_due,
    plan_lines,
    plan_steps,
)

PROBE_SHARE = 0.03
"""At most this share of the time, or `LEAST_PROBE` seconds, goes into detecting a few images before the first plan."""
LEAST_PROBE = 1.0
LATE = 1.05
"""The recall of proposals is left out where it would end later than this multiple of the time."""

_NEVER = 2**31 - 1
_BASE = 2**10
"""The chief sends the other workers a decision as one number. Parts of a run, of which there are fewer than this, are its last digits."""


class TimeBudget(Pace):
    """Paces a run of `config.minutes`: with several workers the chief decides and the others follow.

    Args:
        config: the run's.
        workdir: the run's; each decision is written into it before it is used.
        progress: of the run, as it was restored.
        cluster: the processes that train together.
        started: `clock()` when the command began.
        clock: gives seconds.

    Attributes:
        probe: (seconds) -> what an evaluation costs, estimated in about that time; None: there is no validation data.
        steps: measures the steps.
        costs: of evaluations, checkpoints and the end of the run, in seconds.
        decisions: of the run so far, oldest first. After a restart they may be ahead of its steps.
        current: the decision that holds; None: there is none yet.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        progress: Progress,
        cluster: Cluster,
        started: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__(config)
        self.workdir, self.progress, self.cluster = workdir, progress, cluster
        self.limit = TimeLimit(60.0 * float(config.minutes or 0.0), config.eval_every, config.checkpoint_every)
        self.steps = StepClock(clock)
        self.probe: Callable[[float], EvaluationCost] | None = None
        self._follow: Callable[[Decision, Decision], None] = lambda decision, first: None
        self._started, self._clock = started, clock
        self._file = KeptPlan(workdir.minutes, config)
        kept = self._file.read(progress)
        self.decisions, self._checked, self._spent = kept.decisions, kept.checked, kept.spent
        self.costs = RunCosts(kept.costs, self.limit.seconds)
        self._noted = clock()
        self.current = next((d for d in reversed(self.decisions) if d.step < progress.step), None)

    # What the loop asks

    @property
    def last(self) -> int:
        """Number of the last step, as it is planned; before the first plan one that is never reached."""
        return _NEVER if self.current is None else self.current.last

    @property
    def last_is_known(self) -> bool:
        """Whether the last step is known: from the first plan on."""
        return self.current is not None

    def evaluates(self, step: int) -> bool:
        """Tells whether the run is evaluated after a step."""
        every = self.config.eval_every
        return self._due(step, every, 1 if self.current is None else self.current.evaluations)

    def saves(self, step: int) -> bool:
        """Tells whether a checkpoint is due after a step."""
        every = self.config.checkpoint_every
        return self._due(step, every, 1 if self.current is None else self.current.saves)

    def checks(self, step: int) -> bool:
        """Tells whether `decide` is to be called after a step: it depends on the decisions alone."""
        if step < 1 or step >= self.last:
            return False
        if step <= self._checked:
            return any(decision.step == step for decision in self.decisions)
        if self.current is None:
            return True
        return (step - self.current.step) % self.current.steps_between_checks == 0

    def decide(self, step: int) -> None:
        """Repeats the decision that an earlier start made after this step, or makes one if it is due."""
        decision = next((d for d in self.decisions if d.step == step), None)
        if decision is None and step > self._checked:
            decision = self._follow_chief(step, self._new_decision(step) if self.cluster.is_chief else None)
        if decision is not None:
            self.current = decision
            self._follow(decision, self.decisions[0])

    @contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Measures what takes time between two steps, in a `with` block."""
        with self.steps.pause() as measured:
            yield
        self.costs.measure(name, measured.seconds)  # The chief decides, so its costs are those that count.

    def keep(self) -> None:
        """Puts the decisions and the time so far into the run's progress."""
        self.progress.spent = self.used
        self.progress.decisions = [asdict(d) for d in self.decisions if d.step <= self.progress.step]

    def note_time(self, at_once: bool = False) -> None:
        """Writes down how long the run took so far, at most every five seconds."""
        if self.cluster.is_chief and (at_once or self._clock() - self._noted >= 5.0):
            self._noted = self._clock()
            self._write()

    def _write(self) -> None:
        self._file.write(KeptTimes(self.decisions, self._checked, self.costs.known, self.used))

    def figures(self) -> dict[str, Any]:
        """Returns the minutes that are planned and those that were used."""
        return {"minutes_planned": self.config.minutes, "minutes_used": self.used / 60.0}

    def seconds_left(self) -> float:
        """Returns the seconds that are left."""
        return max(0.0, self.limit.seconds - self.used)

    # Before and after the loop

    def use(self, follow: Callable[[Decision, Decision], None]) -> None:
        """Lets the optimizer's schedule follow the plans, beginning with the one that holds.

        Args:
            follow: takes (decision, first decision of the run).
        """
        self._follow = follow
        if self.current is not None:
            follow(self.current, self.decisions[0])
            self._keep_steps(self.current)

    @property
    def used(self) -> float:
        """The seconds that the run has taken so far, those of its earlier starts included."""
        return self._spent + self._clock() - self._started

    def begin(self) -> None:
        """Begins to measure, and says so where most of the time is over before the first step."""
        self.steps.start()
        if self.cluster.is_chief and not self.decisions and self.used > LATEST_SHARE * self.limit.seconds:
            say(
                f"--minutes {self._shown} is short: {self.used:.0f} s of {self.limit.seconds:.0f} s have passed before the first step. "
                "The run takes a few steps and keeps their weights"
            )

    def fits_evaluation(self, step: int) -> bool:
        """Tells whether an evaluation takes less than the whole time; if not, says so."""
        fits = self.costs.evaluation < self.limit.seconds
        if not fits:
            say(
                f"step {step} is not evaluated: that takes about {self.costs.evaluation:.0f} s, longer than the {self._shown} "
                "minutes. The weights are kept; kfpn evaluate measures them"
            )
        return fits

    def fits_recall(self) -> bool:
        """Tells whether there is time left for the recall of the proposals."""
        fits = self.used + self.costs.ending <= LATE * self.limit.seconds
        if not fits:
            say(f"the recall of the proposals is not measured: the {self._shown} minutes are over")
        return fits

    # How it decides

    @property
    def _shown(self) -> str:
        return f"{self.config.minutes:g}"

    def _due(self, step: int, every: int | None, parts: int) -> bool:
        if step < 1:
            return False
        if step == self.last:
            return True
        if every is not None:
            return step % every == 0
        # A decision begins to hold after its step, so it says nothing about the step itself.
        return self.current is not None and self.current.step < step and self.current.completes_part(step, parts)

    def _keep_steps(self, decision: Decision) -> None:
        with warn_on_write_error(self.workdir.config):
            self.workdir.keep_steps(decision.last)

    def _follow_chief(self, step: int, decision: Decision | None) -> Decision | None:
        """Returns the chief's decision on every worker, when it is written; None: there is none."""
        self._checked = step
        if self.cluster.is_chief:
            if decision is not None:
                self.decisions.append(decision)
            self._write()  # A restart repeats as well that nothing was decided at this step.
        if self.cluster.several:
            number = self.cluster.gather(0 if decision is None else _packed(decision))[0]
            if number and not self.cluster.is_chief:
                decision = _unpacked(number, step, self.current)
                self.decisions.append(decision)
        if decision is not None:
            self._keep_steps(decision)
        return decision

    def _new_decision(self, step: int) -> Decision | None:
        """Returns a new plan if one is due; the steps so far have been waited for."""
        self.steps.close_window()
        if self.current is None:
            due = first_plan_is_due(self.used / self.limit.seconds, self.steps.count)
        elif self.steps.count < FEW_STEPS and self.used < self.current.until:
            due = False
        else:
            due = self.costs.learned or correction_is_due(self.current, step, self.used, self.limit.seconds)
        if not due:
            return None
        self._estimate_evaluation()
        costs = self.costs.with_steps(self.steps.step_seconds(), self.steps.seconds_to_compile())
        decision = plan_steps(self.limit, step, self.current, self.used, costs)
        self.costs.learned = False
        if self.current is None:
            for line in plan_lines(self.limit, decision, costs):
                say(line)
        return decision

    def _estimate_evaluation(self) -> None:
        """Detects a few images to learn what an evaluation costs, unless it is known already."""
        if self.probe is not None and "evaluation" not in self.costs.known:
            with self.steps.pause():
                self.costs.estimate(self.probe(max(LEAST_PROBE, PROBE_SHARE * self.limit.seconds)))


def _packed(decision: Decision) -> int:
    """Returns what other workers need of a decision as one number above 0."""
    return (decision.last * _BASE + decision.evaluations) * _BASE + decision.saves


def _unpacked(number: int, step: int, before: Decision | None) -> Decision:
    rest, saves = divmod(number, _BASE)
    last, evaluations = divmod(rest, _BASE)
    return Decision(step, 0.0 if before is None else before.share_at(step), last, evaluations, saves)
