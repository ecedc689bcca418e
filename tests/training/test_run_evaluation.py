from contextlib import nullcontext
from types import SimpleNamespace

from kfpn.runs.checkpoint import Progress
from kfpn.training.pace import Pace
from kfpn.training.run_evaluation import RunEvaluation
from tests.training import standin


class ShortPace(Pace):
    """Has no time for an evaluation."""

    def fits_evaluation(self, step):
        return False


def test_without_time_no_evaluation_is_made_until_there_are_figures_to_compare_with():
    evaluated = []

    def evaluate(step):
        evaluated.append(step)
        return {"AP": 0.4}

    run = SimpleNamespace(
        workdir=SimpleNamespace(save_weights=lambda model: None), weights_model=None, progress=Progress(),
        optimizer=SimpleNamespace(averaged_weights=nullcontext), evaluate=evaluate, keep_evaluation=None,
    )  # fmt: skip
    evaluation = RunEvaluation(run, ShortPace(standin.config()), lambda: None, lambda row: None)
    for step in (10, 20):
        run.progress.step = step
        evaluation.measure()
    assert (evaluated, run.progress.best_step, run.progress.best) == ([], 20, {})
    run.progress.best, run.progress.step = {"AP": 0.5}, 30
    evaluation.measure()
    assert evaluated == [30]
    assert (run.progress.best_step, run.progress.stale) == (20, 1)
