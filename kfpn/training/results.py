"""Writes the results of a run: figures, samples and curves at each evaluation, final.json at the end."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from PIL import Image

from kfpn.config.run import Config
from kfpn.data.image import load_image
from kfpn.data.proposal_table import ProposalTable
from kfpn.data.record import Source
from kfpn.evaluation.compilation import worth_compiling
from kfpn.evaluation.detect import evaluate_source
from kfpn.evaluation.detection_limit import deciding_figure, images_at_limit, limit_line, own_limit_figures
from kfpn.evaluation.recall import proposal_recall, propose_source
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.modeling.detector import inference_model
from kfpn.modeling.fast_rcnn import fast_rcnn_model
from kfpn.modeling.submodels import Submodels
from kfpn.plotting.curves import plot_curves
from kfpn.plotting.draw_boxes import side_by_side
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.checkpoint import Progress
from kfpn.runs.load import load_proposals_model
from kfpn.runs.workdir import Workdir
from kfpn.training.best_weights import BEST_BY, measured_score
from kfpn.training.distribution.replica_detector import ReplicaDetector, local_devices
from kfpn.training.evaluation_memory import EvaluationMemory
from kfpn.training.progress import say, warn_on_write_error


def build_evaluate(
    config: Config,
    workdir: Workdir,
    submodels: Submodels,
    source: Source,
    proposals: ProposalTable | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Callable[[int], dict[str, Any]]:
    """Builds the function that evaluates the current weights, and draws samples and curves.

    Args:
        config: the run's configuration.
        workdir: the run's; samples and curves go into it.
        submodels: of the detector that is trained; call this outside of the strategy's scope.
        source: of the validation images.
        proposals: of the same images, for a detector whose RPN is not trained; None: the RPN's.
        strategy: of the run: all replicas of this process evaluate, a batch each. None: one device.

    Returns:
        The function (step) -> COCO figures.
    """
    if proposals is None:
        model = inference_model(submodels, config.model, padded=True)
    else:
        model = fast_rcnn_model(submodels, config.model)
    if strategy is not None and strategy.num_replicas_in_sync > 1 and config.model.norm == "bn":
        strategy = None  # Each replica has statistics of its own there, and the first one's are those that are saved.
    devices = () if strategy is None else local_devices(strategy)
    # It is made once, so that it is traced once.
    detect = detect_function(model) if strategy is None else _replicated(model, strategy, config, source)
    # It is made at the first evaluation, by the process that evaluates, when the training has its memory.
    memory = functools.cache(lambda: EvaluationMemory(workdir.evaluation, config, source, devices))
    decided_by = functools.cache(lambda: deciding_figure(source, config.model.max_detections))

    def evaluate(step: int) -> dict[str, Any]:
        with memory().under_way() as at_once:
            source_pass = SourcePass(source, config, progress=sys.stderr.isatty(), proposals=proposals, at_once=at_once)
            figures, detections = evaluate_source(detect, source_pass, source.class_names)
        if (decides := decided_by()) != "AP":
            figures[BEST_BY] = decides
        limit = config.model.max_detections
        if cut := images_at_limit(detections, limit):
            say(limit_line(cut, len(source), limit, "--model.max-detections"))
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


def _replicated(model: Callable, strategy: tf.distribute.Strategy, config: Config, source: Source) -> ReplicaDetector:
    evaluations = -(-config.steps // config.eval_every)
    compiled = worth_compiling(source, config, devices=local_devices(strategy), times=evaluations)
    return ReplicaDetector(model, strategy, compiled)


def measure_recall(config: Config, workdir: Workdir, source: Source) -> dict[str, Any]:
    """Returns the recall of the proposals of the weights that the run has saved, see `evaluate_proposals`.

    Args:
        config: the run's configuration.
        workdir: the run's.
        source: of the validation images.
    """
    first_stage = load_proposals_model(workdir.path)
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
        "last": {"step": progress.evaluated, **progress.last} if progress.last else {},
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
    names = ("AP", "AP50", "AP75", *own_limit_figures(final), "loss")
    figures = ", ".join(f"{name} {final[name]:.3f}" for name in names if final.get(name) is not None)
    kept = f"best step {final['best_step']}" + (f" by {final[BEST_BY]}" if BEST_BY in final else "")
    if measured_score(final) is None:
        kept = f"weights of step {final['best_step']}, the last (AP was not measured)"
    last = final.get("last") or {}
    if measured_score(last) is not None and last["step"] != final["best_step"]:
        decides = last.get(BEST_BY, "AP")
        kept = f"{kept} (the last, step {last['step']}: {decides} {last[decides]:.3f})"
    return f"{figures}, {kept}; {final['seconds']:.0f} s of training, {final['images_per_second']:.1f} images/s"
