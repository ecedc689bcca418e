"""Writes the results of a run at its end: the recall of the proposals, final.json and the last curves."""

import sys
from typing import Any

from kfpn.config.run import Config
from kfpn.config.tile_options import tiles_in_force
from kfpn.data.record import Source
from kfpn.data.tile_source import tiles_without_images
from kfpn.evaluation.detection_limit import own_limit_figures
from kfpn.evaluation.recall import proposal_recall, propose_source
from kfpn.evaluation.source_pass import SourcePass
from kfpn.plotting.curves import plot_curves
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.checkpoint import Progress
from kfpn.runs.load import load_proposals_model
from kfpn.runs.workdir import Workdir
from kfpn.training.best_weights import BEST_BY, measured_score
from kfpn.training.evaluation_memory import EvaluationMemory
from kfpn.training.progress import say, warn_on_write_error


def measure_recall(config: Config, workdir: Workdir, source: Source) -> dict[str, Any]:
    """Returns the recall of the proposals of the weights that the run has saved, see `evaluate_proposals`.

    Args:
        config: the run's configuration.
        workdir: the run's.
        source: of the validation images. A run on tiles is measured on their tiles.
    """
    first_stage = load_proposals_model(workdir.path)
    source = tiles_without_images(source, tiles_in_force(None, config.input))
    with EvaluationMemory(workdir.evaluation, config, source, ()).under_way() as at_once:
        proposals = propose_source(first_stage, SourcePass(source, config, None, sys.stderr.isatty(), at_once=at_once))
    return proposal_recall((source[index] for index in range(len(source))), proposals)


def read_final(workdir: Workdir) -> dict[str, Any] | None:
    """Returns the content of final.json; None if it is missing or damaged, so that it has to be written again."""
    try:
        final = read_json(workdir.final)
    except (OSError, ValueError):
        return None
    complete = isinstance(final, dict) and {"best_step", "seconds", "images_per_second"} <= final.keys()
    return final if complete else None


def write_final(
    config: Config,
    workdir: Workdir,
    progress: Progress,
    recall: dict[str, Any] | None = None,
    times: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes final.json and the last curves, and returns the content of final.json.

    Args:
        config: the run's configuration.
        workdir: the run's.
        progress: of the run at its end.
        recall: of the proposals, of `evaluate_proposals`; None: it was not measured.
        times: what a run of given minutes says about them; None: nothing.

    Raises:
        ValueError: if final.json can't be written.
    """
    losses = {
        name: value
        for name, value in progress.logged.items()
        if name not in ("step", "images_per_second", "lr", "skipped")
    }
    final = {
        **progress.best,
        **losses,
        "steps": progress.step,
        "best_step": progress.best_step,
        "last_AP": progress.last.get("AP"),
        "last": {"step": progress.evaluated, **progress.last} if progress.last else {},
        "seconds": progress.seconds,
        "images_per_second": progress.step * config.batch_size / max(progress.seconds, 1e-9),
        **(times or {}),
        **({} if recall is None else {"proposals": recall}),
    }
    with warn_on_write_error(workdir.curves):
        plot_curves(workdir.metrics, workdir.curves)
    try:
        write_json(workdir.final, final)
    except OSError as error:
        raise ValueError(
            f"{workdir.path} must have room for final.json, got: {error}. All else is saved: make room and run the same command"
        ) from error
    say(f"finished: {summary_line(final)}; {workdir.path}")
    return final


def summary_line(final: dict[str, Any]) -> str:
    """Returns one line that says the main figures of final.json."""
    names = ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", *own_limit_figures(final), "loss")
    figures = ", ".join(f"{name} {final[name]:.3f}" for name in names if final.get(name) is not None)
    kept = f"best step {final['best_step']}" + (f" by {final[BEST_BY]}" if BEST_BY in final else "")
    if measured_score(final) is None:
        kept = f"weights of step {final['best_step']}, the last ({final.get(BEST_BY, 'AP')} was not measured)"
    last = final.get("last") or {}
    if measured_score(last) is not None and last["step"] != final["best_step"]:
        decides = last.get(BEST_BY, "AP")
        kept = f"{kept} (the last, step {last['step']}: {decides} {last[decides]:.3f})"
    line = f"{figures}, {kept}; {final['seconds']:.0f} s of training, {final['images_per_second']:.1f} images/s"
    if "minutes_used" in final:
        line = f"{line}; {final['minutes_used']:.2f} of {final['minutes_planned']:g} minutes used"
    return line
