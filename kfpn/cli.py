"""The command line: `kfpn train`, `evaluate`, `predict`, `import-weights`, `list-pretrained`."""

import contextlib
import dataclasses
import difflib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

# TensorFlow is imported where it is needed: `kfpn --help` and a mistyped option answer at once.
from kfpn import __version__
from kfpn.config import Config, ModelConfig
from kfpn.options import (
    DESCRIPTION,
    HELP,
    Benchmark,
    Evaluate,
    Export,
    ImportWeights,
    ListPretrained,
    Predict,
    Propose,
    Visualize,
)
from kfpn.presets import PRESETS, preset
from kfpn.scales import parse_scales

if TYPE_CHECKING:
    from kfpn.data.record import Source
    from kfpn.image_pyramid import ImagePyramid

Command = Config | Evaluate | Predict | Propose | Visualize | ImportWeights | ListPretrained | Benchmark | Export


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        args: what stands behind the program's name. None: `sys.argv[1:]`.

    Returns:
        The exit code: 0, 1 where some images failed, 2 after an error (one line on stderr; with KFPN_DEBUG=1 the
        traceback), 130 after Ctrl-C.
    """
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        print(f"kfpn {__version__}")
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        command = _parse(args)
        with _plain_warnings():
            return _run(command)
    except KeyboardInterrupt:
        print("kfpn: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `kfpn train --help | head`
        sys.stderr.close()
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("KFPN_DEBUG") == "1":
            raise
        print(f"kfpn: error: {error}", file=sys.stderr)
        return 2


def _run(command: Command) -> int:
    if isinstance(command, Config):
        return _train(command)
    if isinstance(command, ImportWeights):
        return _import_weights(command)
    if isinstance(command, ListPretrained):
        return _list_pretrained()
    if isinstance(command, Export):
        return _export(command)
    if isinstance(command, Benchmark):
        return _benchmark(command)
    if isinstance(command, Visualize):
        return _visualize(command)
    if isinstance(command, Propose):
        return _propose(command)
    return _evaluate(command) if isinstance(command, Evaluate) else _predict(command)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Makes warnings lines like errors are, without the place in the code."""
    logger, before = logging.getLogger("kfpn"), warnings.formatwarning
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("kfpn: warning: %(message)s"))
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    warnings.formatwarning = lambda message, *_, **__: f"kfpn: warning: {message}\n"
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
        warnings.formatwarning = before


def _parse(args: list[str]) -> Command:
    command = _parse_once(args, ModelConfig())
    if isinstance(command, ImportWeights):
        from kfpn.weights.load import model_config
        from kfpn.weights.read import read_checkpoint

        # Once more, with the network that the checkpoint has as default.
        command = _parse_once(args, model_config(read_checkpoint(command.source)))
    return command


def _parse_once(args: list[str], model: ModelConfig) -> Command:
    import_defaults = ImportWeights(source=tyro.MISSING, output=tyro.MISSING, model=model)

    def subcommand(name: str, **options: Any) -> Any:
        description = HELP[name] if args[:1] == [name] else HELP[name].splitlines()[0]
        return tyro.conf.subcommand(name, description=description, **options)

    commands: Any = (
        Annotated[Config, subcommand("train", default=train_defaults(args))]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Predict, subcommand("predict")]
        | Annotated[Visualize, subcommand("visualize")]
        | Annotated[Propose, subcommand("proposals")]
        | Annotated[ImportWeights, subcommand("import-weights", default=import_defaults)]
        | Annotated[ListPretrained, subcommand("list-pretrained")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Benchmark, subcommand("benchmark")]
    )
    if args and not args[0].startswith("-") and args[0] not in HELP:
        near = difflib.get_close_matches(args[0], HELP, n=1, cutoff=0.0)[0]
        raise ValueError(f"command must be one of {', '.join(HELP)}, got {args[0]!r}; did you mean kfpn {near}?")
    options = (
        (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
        if args[:1] == ["export"]
        else (tyro.conf.OmitSubcommandPrefixes,)
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(commands, prog="kfpn", description=DESCRIPTION, args=args, config=options)
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None and type(cause) is not ValueError:
            cause = cause.__cause__ or cause.__context__
        if cause is not None and " must " in str(cause):  # from a config class, which names the option by itself
            raise ValueError(f"{cause} (see kfpn {args[0]} --help)") from cause
        sys.stderr.write(said.getvalue())
        raise


def train_defaults(args: Sequence[str]) -> Config:
    """Returns what `kfpn train` starts from: the preset that `args` name, and a work directory of the data's name.

    With `--init` the network and the losses are those the weights were made with; a run that goes on has them already.

    Args:
        args: the command line; only `--preset`, `--data`, `--init` and `--workdir` are looked at.

    Raises:
        ValueError: for weights that can't be read.
    """
    if args[:1] != ["train"]:
        return preset("shapes")
    init, data = _option(args, "init"), _option(args, "data")
    name = _option(args, "preset") or ("finetune" if init else "shapes")
    # An unknown preset is left to the parser, which lists the known ones.
    config = preset(name if name in PRESETS else "shapes")
    if data and data != config.data:
        config = dataclasses.replace(config, data=data, workdir=f"runs/{data_name(data)}")
    if init and not _asks_for_help(args):
        settings = _settings_of(init, _option(args, "workdir") or config.workdir)
        config = dataclasses.replace(
            config,
            init=init,
            **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in settings.items()},
        )
    return config


def _asks_for_help(args: Sequence[str]) -> bool:
    return "--help" in args or "-h" in args


def _settings_of(init: str, workdir: str) -> dict[str, dict[str, Any]]:
    """Returns the fields of the sections model, sampling and input that come with weights."""
    from kfpn.engine.workdir import Workdir

    files = Workdir(workdir)
    if files.has_checkpoints() and files.config.exists():
        config = files.read_config()
        if config.init == init:
            return {name: dict(vars(getattr(config, name))) for name in ("model", "sampling", "input")}
    from kfpn.weights.read import read_checkpoint

    checkpoint = read_checkpoint(init)
    return {"model": checkpoint.model, "sampling": checkpoint.sampling, "input": checkpoint.input}


def data_name(data: str) -> str:
    """Returns a folder name for a data set: `voc:photos/bccd` -> `bccd`, `coco:cars/train.json` -> `cars-train`."""
    kind, _, rest = data.partition(":")
    path = Path(rest.split(",")[0] or kind)
    parts = [path.resolve().parent.name, path.stem] if kind == "coco" else [path.resolve().name]
    if kind == "tfds":
        parts = [rest.split(",")[0]]
    return re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-.") or kind


def _option(args: Sequence[str], name: str) -> str | None:
    """Finds the value of `--name VALUE` or `--name=VALUE`; the last one holds, as in the parser."""
    found = None
    for index, word in enumerate(args):
        if word == f"--{name}" and index + 1 < len(args):
            found = args[index + 1]
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return found


def _train(config: Config) -> int:
    from kfpn.engine.train import train

    train(config)
    return 0


def _evaluate(command: Evaluate) -> int:
    from kfpn.data.proposals import proposals_of
    from kfpn.engine.workdir import write_json
    from kfpn.evaluation import detections_to_coco, evaluate_source

    for file in filter(None, (command.json, command.detections)):
        _require_place(Path(file))
    model = _load_evaluated(command)
    config = _run_config(command.workdir)
    source = _open_validation(command, config)
    given = proposals_of(config.proposals, source) if config.proposals else None
    pyramid = _image_pyramid(command, model, config)
    if pyramid is None:
        metrics, detections = evaluate_source(
            model, source, config, model.class_names, command.batch_size, proposals=given
        )
    else:
        metrics, detections = pyramid.evaluate_source(source, model.class_names, command.batch_size)
    print(f"{source.name}: {len(source)} images\n{_table(metrics)}")
    if pyramid is not None:
        print(pyramid.cost_line())
        metrics["image_pyramid"] = pyramid.cost()
    if command.proposals:
        from kfpn.evaluation.proposals import recall_line

        metrics["proposals"] = _proposal_recall(command, config, source)
        print(recall_line(metrics["proposals"]))
    if command.json:
        write_json(Path(command.json), metrics)
    if command.detections:
        write_json(Path(command.detections), detections_to_coco(detections, source.category_ids))
    return 0


def _load_evaluated(command: Evaluate) -> Any:
    from kfpn.engine.workdir import Workdir, load_detector, load_fast_rcnn

    files = Workdir(command.workdir)
    if not (files.config.exists() and files.read_config().proposals):
        return load_detector(command.workdir, padded=True)
    if command.proposals or command.scales is not None or command.flip:
        raise ValueError(
            f"proposals, scales and flip must be left out for {command.workdir}, which was trained on fixed proposals: it "
            "has no trained RPN"
        )
    return load_fast_rcnn(command.workdir)


def _proposal_recall(command: Evaluate, config: Config, source: "Source") -> dict[str, float | None]:
    from kfpn.engine.workdir import Workdir, load_submodels
    from kfpn.evaluation.proposals import evaluate_proposals
    from kfpn.modeling.fixed_proposals import proposals_model

    model = proposals_model(load_submodels(Workdir(command.workdir)), config.model)
    return evaluate_proposals(model, source, config, command.batch_size)


def _image_pyramid(command: Evaluate | Predict, model: Any, config: Config) -> "ImagePyramid | None":
    if command.scales is None and not command.flip:
        return None
    from kfpn.image_pyramid import ImagePyramid

    return ImagePyramid(model, config, parse_scales(command.scales), command.flip)


def _run_config(workdir: str) -> Config:
    from kfpn.engine.workdir import Workdir

    return Workdir(workdir).read_config()


def _require_place(file: Path) -> None:
    """Makes sure, before minutes of work, that a file can be written there."""
    if file.is_dir():
        raise ValueError(f"{file} must be the name of a file, got a folder")
    if not file.parent.is_dir():
        raise ValueError(f"{file} must lie in a folder that is there, got {file.parent}, which is not")


def _open_validation(command: Evaluate, config: Config) -> "Source":
    from kfpn.data.sources import default_val_data, open_source

    data = command.data or config.val_data or default_val_data(config.data)
    if not data:
        raise ValueError(f"{config.data} has no validation split: say what to evaluate on with --data")
    return open_source(data, command.split)


def _table(metrics: dict[str, Any]) -> str:
    """Lays out the figures: the twelve in two rows, then the classes."""

    def shown(value: float | None) -> str:
        return "   -  " if value is None else f"{value:6.4f}"

    names = [name for name in metrics if name != "per_class"]
    rows = ["  ".join(f"{name:>5} {shown(metrics[name])}" for name in part) for part in (names[:6], names[6:])]
    width = max(map(len, metrics["per_class"]), default=0)
    rows += ["AP of each class:"]
    rows += [f"  {name:<{width}}  {shown(value)}" for name, value in metrics["per_class"].items()]
    return "\n".join(rows)


def _predict(command: Predict) -> int:
    from kfpn.engine.workdir import load_detector
    from kfpn.predict import find_images, predict_images

    paths, output = find_images(command.images), Path(command.output)
    model = load_detector(command.workdir, padded=True)
    config = _run_config(command.workdir)
    pyramid = _image_pyramid(command, model, config)
    results, failed = predict_images(model, config, paths, output, command.min_score, pyramid)
    print(f"objects: {len(results)}; images: {len(paths) - len(failed)} of {len(paths)}; in {output}")
    if pyramid is not None:
        print(pyramid.cost_line())
    return 1 if failed else 0


def _visualize(command: Visualize) -> int:
    from kfpn.engine.workdir import Workdir, load_submodels, require_trained
    from kfpn.predict import find_images
    from kfpn.pyramid_maps import page_paths, visualize_images

    files = Workdir(command.workdir)
    require_trained(files)
    config, (class_names, _) = files.read_config(), files.read_classes()
    pages = page_paths(find_images(command.images), command.output)
    failed = visualize_images(load_submodels(files), config, class_names, pages, command.min_score, command.proposals)
    for path, page in pages.items():
        if path not in failed:
            print(f"{path} -> {page}")
    return 1 if failed else 0


def _propose(command: Propose) -> int:
    from kfpn.data.sources import default_val_data, open_source
    from kfpn.engine.workdir import Workdir, load_submodels, require_trained
    from kfpn.propose import propose

    output, files = Path(command.output), Workdir(command.workdir)
    _require_place(output)
    require_trained(files)
    config = files.read_config()
    data = command.data or config.data
    own_val_data = None if command.data else config.val_data
    val_data = command.val_data or own_val_data or default_val_data(data)
    sources = [open_source(data, "train")] + ([open_source(val_data, "validation")] if val_data else [])
    counts = propose(load_submodels(files), config, sources, output, command.count, command.batch_size)
    for source, count in zip(sources, counts, strict=True):
        print(f"{source.name}: {len(source)} images, {count} proposals")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


def _import_weights(command: ImportWeights) -> int:
    from kfpn.weights.importing import import_weights

    checkpoint = import_weights(command.source, command.output, command.model, command.class_names)
    print(f"{checkpoint.path}: {checkpoint.kind}")
    for note in checkpoint.notes:
        print(f"  {note}")
    print(f"{len(checkpoint.tensors)} tensors; work directory {command.output}")
    return 0


def _list_pretrained() -> int:
    from kfpn.weights.pretrained import list_pretrained

    for known in list_pretrained():
        accuracy = "" if known.box_ap is None else f", box AP {known.box_ap}"
        size = "" if known.size is None else f", {known.size / 1e6:.0f} MB"
        print(f"{known.name}\n    {known.what}{accuracy}{size}; {known.licence}\n    {known.url}")
    return 0


def _export(command: Export) -> int:
    from kfpn.export import commands

    options = command.options
    if isinstance(options, commands.SavedModelOptions):
        return commands.run_saved_model(options)
    if isinstance(options, commands.OnnxOptions):
        return commands.run_onnx(options)
    from kfpn.export import tf_trt

    print(tf_trt.run(options))
    return 0


def _benchmark(command: Benchmark) -> int:
    from kfpn.export.benchmark import benchmark, table

    found = benchmark(command.targets, command.size, command.runs, command.image)
    print(table(found["contestants"], found["peak"]))
    print(
        f"\npeak of this machine's convolutions: {found['peak']:.0f} GFLOP/s; image of {command.size[0]} x {command.size[1]}"
    )
    return 0 if all(one.seconds for one in found["contestants"]) else 1
