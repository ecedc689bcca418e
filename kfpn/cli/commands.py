"""Carries out the commands of the command line; TensorFlow and the rooms that use it are imported where they are needed."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfpn.cli import options
from kfpn.cli.auto_options import AutoTraining, train_automatically
from kfpn.cli.demo_command import Demo, serve_until_stopped
from kfpn.cli.evaluate_command import TILES_OF_TRAINING, evaluate_and_print, require_place
from kfpn.cli.exports import EXPORTS
from kfpn.cli.idle_gpu import warn_of_idle_gpu
from kfpn.cli.report_command import Report, report_and_print, report_on_training
from kfpn.cli.segment_commands import draw_pages_of_segments, holds_segments, predict_segments
from kfpn.config.checks import require_local
from kfpn.config.run import Config
from kfpn.config.test_scales import parse_scales
from kfpn.config.tile_options import asked_tiles

if TYPE_CHECKING:
    from kfpn.inference.image_pyramid import ImagePyramid

Command = (
    Config | AutoTraining | options.LookAtData | options.Evaluate | options.Predict | options.Propose | options.Visualize | options.ReplayNan
    | options.ImportWeights | options.ListPretrained | options.Benchmark | options.Export | Report | Demo
)  # fmt: skip


def run(command: Command) -> int:
    """Does what a parsed command says, and returns the exit code."""
    work = _WORK_OF_A_GPU.get(type(command))
    if isinstance(command, Report) and command.detections:  # then no network runs
        work = None
    by_tensorflow = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"  # JAX says so itself.
    if (
        work is not None and by_tensorflow and not getattr(command, "cpu_devices", None)
    ):  # who splits the CPU wants to train on it
        warn_of_idle_gpu(work)
    return _RUN[type(command)](command)


def _train(config: Config) -> int:
    from kfpn.training.train import train

    report_on_training(config, train(config))
    return 0


def _look_at_data(command: options.LookAtData) -> int:
    from kfpn.cli.data_report import report_data

    return report_data(command)


def _image_pyramid(command: options.Predict, model: Any, config: Config) -> "ImagePyramid | None":
    from kfpn.inference.tiled_pyramid import TiledPyramid, pyramid_asked_for

    tiles = asked_tiles(command.tiles, command.overlap, command.tiles_only)
    pyramid = pyramid_asked_for(model, config, tiles, parse_scales(command.scales), command.flip)
    if isinstance(pyramid, TiledPyramid) and command.tiles is None:
        print(TILES_OF_TRAINING.format(pyramid.tiles.side), flush=True)
    return pyramid


def _run_config(workdir: str) -> Config:
    from kfpn.runs.workdir import Workdir

    return Workdir(workdir).read_config()


def _predict(command: options.Predict) -> int:
    from kfpn.data.decode_limits import decoding_at_most
    from kfpn.inference.predict_files import predict_files
    from kfpn.inference.user_inputs import find_inputs
    from kfpn.runs.load import limited, load_trained_detector

    require_local("output", command.output)
    if holds_segments(command.workdir):
        return predict_segments(command)
    inputs, output = find_inputs(command.images), Path(command.output)
    model = load_trained_detector(command.workdir, True, command.max_detections, command.precision)
    config = limited(_run_config(command.workdir), command.max_detections)
    pyramid = _image_pyramid(command, model, config)
    least = _least_score(command, model)
    with decoding_at_most(command.max_pixels):
        tally = predict_files(model, config, inputs, output, least, pyramid)
    print(f"{tally.line()}; in {output}")
    if pyramid is not None:
        print(pyramid.cost_line())
    return 1 if tally.faults else 0


def _least_score(command: options.Predict, model: Any) -> Any:
    """Returns the least score of a detection: the one that was asked for, that of each class, or the default."""
    if command.min_score is not None:
        return command.min_score
    if not hasattr(model, "thresholds"):
        from kfpn.inference.predict import DEFAULT_MIN_SCORE

        return DEFAULT_MIN_SCORE
    low, high = min(model.thresholds), max(model.thresholds)
    print(
        f"each class has its own least score, {low:.2f} to {high:.2f}, of thresholds.json in {command.workdir}; --min-score sets "
        "one for all"
    )
    return model.thresholds


def _visualize(command: options.Visualize) -> int:
    from kfpn.inference.images_of_user import find_images
    from kfpn.inference.inspect_pyramid import page_paths, visualize_images
    from kfpn.runs.load import load_submodels, require_trained
    from kfpn.runs.workdir import Workdir

    run, of_segments = Workdir(command.workdir), holds_segments(command.workdir)
    require_trained(run, rpn=not of_segments, task="segments" if of_segments else "detections")
    config, (class_names, _) = run.read_config(), run.read_classes()
    pages = page_paths(find_images(command.images), command.output)
    if of_segments:
        failed = draw_pages_of_segments(command, config, pages)
    else:
        least = 0.5 if command.min_score is None else command.min_score
        most = 50 if command.proposals is None else command.proposals
        failed = visualize_images(load_submodels(run), config, class_names, pages, least, most)
    for path, page in pages.items():
        if path not in failed:
            print(f"{path} -> {page}")
    return 1 if failed else 0


def _replay_nan(command: options.ReplayNan) -> int:
    from kfpn.runs.workdir import Workdir
    from kfpn.training.nonfinite.recorder import read_report, replay

    run = Workdir(command.workdir)
    report = read_report(run)
    config = run.read_config()
    if config.masks_on_host and os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise ValueError(
            f"sampling.mask_targets must be grid to compute a step on another backend, got {config.sampling.mask_targets}: write "
            "KERAS_BACKEND=tensorflow before the command"
        )
    print(f"{run.nan}: step {report['step']} of {config.steps}, images {', '.join(report['images'])}")
    print("in training: " + ", ".join(f"{name} {value}" for name, value in report["row"].items()))
    finding = replay(config, run)
    print(
        "now:         " + ", ".join(f"{k} {v}" for k, v in {**finding.losses, "grad_norm": finding.grad_norm}.items())
    )
    print(finding.line)
    return 0


def _propose(command: options.Propose) -> int:
    from kfpn.data.formats import default_val_data, open_source
    from kfpn.data.own_split import open_run_sources
    from kfpn.evaluation.source_pass import SourcePass
    from kfpn.inference.write_proposals import propose
    from kfpn.runs.load import load_submodels, require_trained
    from kfpn.runs.workdir import Workdir

    output, run = Path(command.output), Workdir(command.workdir)
    require_place("output", command.output)
    require_trained(run)
    config = run.read_config()
    if command.data or command.val_data:
        data = command.data or config.data
        val_data = command.val_data or default_val_data(data)
        how = config.check_images
        sources = [open_source(data, "train", how)] + ([open_source(val_data, "validation", how)] if val_data else [])
    else:
        sources = [source for source in open_run_sources(config) if source is not None]
    if command.batch_size is not None:
        config = dataclasses.replace(config, eval_batch_size=None)
    passes = [SourcePass(source, config, command.batch_size) for source in sources]
    counts = propose(load_submodels(run), config.model, passes, output, command.count)
    for source, count in zip(sources, counts, strict=True):
        print(f"{source.name}: {len(source)} images, {count} proposals")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


def _import_weights(command: options.ImportWeights) -> int:
    from kfpn.weights.import_weights import all_notes, import_weights

    checkpoint = import_weights(command.source, command.output, command.model, command.class_names)
    print(f"{checkpoint.path}: {checkpoint.kind}")
    for note in all_notes(checkpoint, command.model):
        print(f"  {note}")
    print(f"{len(checkpoint.tensors)} tensors; work directory {command.output}")
    return 0


def _list_pretrained(_: options.ListPretrained) -> int:
    from kfpn.weights.pretrained import list_pretrained

    print(
        "kfpn:small\n    Faster R-CNN R-18-FPN of width 32, made pictures (the data set shapes); in the package, no download"
    )
    for known in list_pretrained():
        accuracy = "" if known.box_ap is None else f", box AP {known.box_ap}"
        accuracy += "" if known.mask_ap is None else f", mask AP {known.mask_ap}"
        size = "" if known.size is None else f", {known.size / 1e6:.0f} MB"
        print(f"{known.name}\n    {known.what}{accuracy}{size}; {known.licence}\n    {known.url}")
    return 0


def _export(command: options.Export) -> int:
    return next(export.run for export in EXPORTS if export.options is type(command.options))(command.options)


def _benchmark(command: options.Benchmark) -> int:
    from kfpn.export.benchmark.race import benchmark, benchmark_table

    figures = benchmark(command.targets, command.size, command.runs, command.image, command.precision)
    print(benchmark_table(figures["contestants"], figures["peak"]))
    print(
        f"\npeak of this machine's convolutions: {figures['peak']:.0f} GFLOP/s; image of {command.size[0]} x {command.size[1]}"
    )
    return 0 if all(one.seconds for one in figures["contestants"]) else 1


_RUN: dict[type, Callable[[Any], int]] = {
    Config: _train,
    AutoTraining: train_automatically,
    options.LookAtData: _look_at_data,
    options.Evaluate: evaluate_and_print,
    Report: report_and_print,
    options.Predict: _predict,
    options.Visualize: _visualize,
    Demo: serve_until_stopped,
    options.ReplayNan: _replay_nan,
    options.Propose: _propose,
    options.ImportWeights: _import_weights,
    options.ListPretrained: _list_pretrained,
    options.Export: _export,
    options.Benchmark: _benchmark,
}
_WORK_OF_A_GPU: dict[type, str] = {
    Config: "training",
    AutoTraining: "training",
    options.Evaluate: "evaluation",
    Report: "evaluation",
    options.Predict: "prediction",
    options.Visualize: "the detector",
    Demo: "the detector",
    options.ReplayNan: "the step",
    options.Propose: "the RPN",
    options.Benchmark: "every measurement",
}
"""Command -> what it runs on a GPU, where there is one."""
