"""Writes the results of a run: figures, samples and curves at each evaluation, final.json at the end."""

import sys
from collections.abc import Callable
from typing import Any

from PIL import Image

from kfpn.config.run import Config
from kfpn.data.image import load_image
from kfpn.data.proposal_table import ProposalTable
from kfpn.data.record import Source
from kfpn.evaluation.detect import evaluate_source
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.modeling.detector import inference_model
from kfpn.modeling.fast_rcnn import fast_rcnn_model
from kfpn.modeling.submodels import Submodels
from kfpn.plotting.curves import plot_curves
from kfpn.plotting.draw_boxes import side_by_side
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.checkpoint import Progress
from kfpn.runs.workdir import Workdir
from kfpn.training.best_weights import measured_score
from kfpn.training.progress import say, warn_on_write_error


def build_evaluate(
    config: Config, workdir: Workdir, submodels: Submodels, source: Source, proposals: ProposalTable | None = None
) -> Callable[[int], dict[str, Any]]:
    """Builds the function that evaluates the current weights, and draws samples and curves.

    Args:
        config: the run's configuration.
        workdir: the run's; samples and curves go into it.
        submodels: of the detector that is trained. It is evaluated on one device: call this outside of the strategy's scope.
        source: of the validation images.
        proposals: of the same images, for a detector whose RPN is not trained; None: the RPN's.

    Returns:
        The function (step) -> COCO figures.
    """
    if proposals is None:
        model = inference_model(submodels, config.model, padded=True)
    else:
        model = fast_rcnn_model(submodels, config.model)
    detect = detect_function(model)  # It is made once, so that it is traced once.

    def evaluate(step: int) -> dict[str, Any]:
        bar = sys.stderr.isatty()
        source_pass = SourcePass(source, config, progress=bar, proposals=proposals)
        figures, detections = evaluate_source(detect, source_pass, source.class_names)
        by_image = {detection["image_id"]: detection for detection in detections}
        for index in range(min(config.samples, len(source))):
            record = source[index]
            truth = {"boxes": record.boxes, "labels": record.labels}
            picture = side_by_side(load_image(record), truth, by_image[record.image_id], source.class_names)
            with warn_on_write_error(workdir.samples):
                workdir.samples.mkdir(exist_ok=True)
                Image.fromarray(picture).save(workdir.samples / f"{index:03d}.png")
        with warn_on_write_error(workdir.curves):
            plot_curves(workdir.metrics, workdir.curves)
        return figures

    return evaluate


def read_final(workdir: Workdir) -> dict[str, Any] | None:
    """Returns the content of final.json; None if it is missing or damaged, so that it has to be written again."""
    try:
        final = read_json(workdir.final)
    except (OSError, ValueError):
        return None
    complete = isinstance(final, dict) and {"best_step", "seconds", "images_per_second"} <= final.keys()
    return final if complete else None


def write_final(
    config: Config, workdir: Workdir, progress: Progress, recall: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Writes final.json and the last curves, and returns the content of final.json.

    Args:
        config: the run's configuration.
        workdir: the run's.
        progress: of the run at its end.
        recall: of the proposals, of `evaluate_proposals`; None: it was not measured.

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
        "seconds": progress.seconds,
        "images_per_second": progress.step * config.batch_size / max(progress.seconds, 1e-9),
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
    names = ("AP", "AP50", "AP75", "loss")
    figures = ", ".join(f"{name} {final[name]:.3f}" for name in names if final.get(name) is not None)
    kept = f"best step {final['best_step']}"
    if measured_score(final) is None:
        kept = f"weights of step {final['best_step']}, the last (AP was not measured)"
    return f"{figures}, {kept}; {final['seconds']:.0f} s of training, {final['images_per_second']:.1f} images/s"
