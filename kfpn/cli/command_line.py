"""Parses the command line and shows its errors; `commands.py` does the work."""

import contextlib
import dataclasses
import difflib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro

# TensorFlow is imported where it is needed: `kfpn --help` and a mistyped option answer at once.
from kfpn import __version__
from kfpn.cli.auto_options import given_options, is_automatic, parse_automatic
from kfpn.cli.commands import Command, run
from kfpn.cli.demo_command import Demo
from kfpn.cli.exports import EXPORTS, ExportRow, places_first
from kfpn.cli.found_init import option_value, with_found_init
from kfpn.cli.help_texts import DESCRIPTION, HELP
from kfpn.cli.keras_backend import require_backend
from kfpn.cli.options import (
    Benchmark,
    Evaluate,
    Export,
    ImportWeights,
    ListPretrained,
    LookAtData,
    Predict,
    Propose,
    ReplayNan,
    Visualize,
)
from kfpn.cli.report_command import Report
from kfpn.cli.segment_options import for_segments, task_of_line
from kfpn.cli.sheet_options import sheet_defaults
from kfpn.config.checks import require_local
from kfpn.config.model import ModelConfig
from kfpn.config.presets import PRESETS, preset
from kfpn.config.run import Config
from kfpn.config.unused_options import require_used
from kfpn.data.formats import run_name
from kfpn.data.out_of_memory import is_out_of_memory
from kfpn.runs.command_start import command_under_way
from kfpn.training.automatic import start_config


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        args: the words behind the program's name; None: `sys.argv[1:]`.

    Returns:
        The exit code: 0, 1 where some images failed, 2 after an error (one line on stderr; with KFPN_DEBUG=1 the
        traceback), 130 after Ctrl-C.
    """
    # train.py puts a word before those of the process. Who calls this from Python has a process that is older than the command.
    is_process = args is None or list(args[1:]) == sys.argv[1:]
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        print(f"kfpn {__version__}")
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be UTF-8
    try:
        with _plain_warnings(), command_under_way(is_process):
            command = _parse(args)
            require_backend(command)
            return run(command)
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
    except Exception as error:
        if os.environ.get("KFPN_DEBUG") == "1" or not is_out_of_memory(error):
            raise
        first = next(iter(str(error).splitlines()), "").strip()
        print(
            f"kfpn: error: memory must be enough for `kfpn {args[0]}`, got no more of it{first and f' ({first[:200]})'}: use "
            "smaller images, fewer at once, or a machine with more memory",
            file=sys.stderr,
        )
        return 2


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows warnings as lines, as errors are shown, without the place in the code.

    Pillow's warning of images with more than half of the pixels that kfpn allows is not shown: kfpn has a limit of its own.
    """
    logger, before = logging.getLogger("kfpn"), warnings.formatwarning
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("kfpn: warning: %(message)s"))
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    warnings.formatwarning = lambda message, *_, **__: f"kfpn: warning: {message}\n"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
        warnings.formatwarning = before


def _parse(args: list[str]) -> Command:
    export = next((row for row in EXPORTS if args[:2] == ["export", row.name]), None)
    if export is not None:
        return _parse_export(export, args)
    args = with_found_init(args)
    start = train_defaults(args)
    if start.preset == "auto" and not _asks_for_help(args):
        return parse_automatic(args, start, lambda defaults: _parse_once(args, ModelConfig(), defaults))
    command = _parse_once(args, ModelConfig(), start)
    if isinstance(command, ImportWeights):
        from kfpn.weights.assign import model_config
        from kfpn.weights.identify import read_trained_weights

        # The defaults of the network are those of the checkpoint, so the line is parsed once more.
        command = _parse_once(args, model_config(read_trained_weights(command.source)), start)
    if isinstance(command, Config):
        require_used(given_options(args, command), command)
    return command


def _parse_export(row: ExportRow, args: list[str]) -> Export:
    # The options are parsed without the command around them: so errors name them as they are written.
    words = places_first(row.name, args[2:])
    return Export(
        _parse_words(row.options, f"kfpn export {row.name}", row.description, words, tyro.conf.OmitArgPrefixes)
    )


def _parse_once(args: list[str], model: ModelConfig, start: Config) -> Any:
    import_defaults = ImportWeights(source=tyro.MISSING, output=tyro.MISSING, model=model)

    def subcommand(name: str, **options: Any) -> Any:
        description = HELP[name] if args[:1] == [name] else HELP[name].splitlines()[0]
        return tyro.conf.subcommand(name, description=description, **options)

    commands: Any = (
        Annotated[Config, subcommand("train", default=start)]
        | Annotated[LookAtData, subcommand("data", default=sheet_defaults(args, option_value, train_defaults))]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Report, subcommand("report")]
        | Annotated[Predict, subcommand("predict")]
        | Annotated[Visualize, subcommand("visualize")]
        | Annotated[Demo, subcommand("demo")]
        | Annotated[ReplayNan, subcommand("replay-nan")]
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
    return _parse_words(commands, "kfpn", DESCRIPTION, args, *options)


def _parse_words(options: Any, program: str, description: str, args: list[str], *config: Any) -> Any:
    """Returns the options that words make; an error of a configuration class becomes one line that names the option."""
    command = program if program != "kfpn" else " ".join([program, *args[:1]])
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(options, prog=program, description=description, args=args, config=config)
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None and type(cause) is not ValueError:
            cause = cause.__cause__ or cause.__context__
        if cause is not None and " must " in str(cause):  # raised by a configuration class, which names the option
            raise ValueError(f"{cause} (see {command} --help)") from cause
        general, own = "run kfpn --help", f"run {command} --help"
        sys.stderr.write(message.getvalue().replace(general.ljust(len(own)), own))
        raise


def train_defaults(args: Sequence[str]) -> Config:
    """Returns the configuration that `kfpn train` starts from: the preset that `args` name, and a work directory named after the data.

    With `--init` the network and the losses are those that the weights were made with. A run that goes on has them already. Of the
    preset `auto` it says nothing but the data, the weights and the work directory: see `kfpn.cli.auto_options`.

    Args:
        args: the command line; only `--preset`, `--data`, `--init`, `--mask`, `--task`, `--workdir`, `--minutes` and `--steps` are looked at.

    Raises:
        ValueError: for weights that can't be read, and for both minutes and steps.
    """
    if args[:1] != ["train"]:
        return preset("shapes")
    init, data = option_value(args, "init"), option_value(args, "data")
    require_local("init", init)
    init = None if init == "None" else init
    if is_automatic(option_value(args, "preset"), data):
        start = start_config(data or "shapes", init)
        return _with_minutes(dataclasses.replace(start, workdir=option_value(args, "workdir") or start.workdir), args)
    name = option_value(args, "preset") or ("finetune" if init else "shapes")
    # An unknown preset is left to the parser, which lists the known ones.
    config = for_segments(preset(name if name in PRESETS else "shapes"), args)
    if data and data != config.data:
        config = dataclasses.replace(config, data=data, workdir=f"runs/{run_name(data)}")
    config = _with_minutes(config, args)
    if init and not _asks_for_help(args):
        from kfpn.weights.brought_settings import settings_of_weights

        workdir = option_value(args, "workdir") or config.workdir
        settings = settings_of_weights(init, workdir, task_of_line(args)).settings
        config = dataclasses.replace(
            config,
            init=init,
            **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in settings.items()},
        )
    return config


def _with_minutes(config: Config, args: Sequence[str]) -> Config:
    """Returns what a run of given minutes starts from; without minutes, the configuration as it is."""
    if (minutes := option_value(args, "minutes")) in (None, "None"):
        return config
    if (steps := option_value(args, "steps")) is not None:
        raise ValueError(
            f"minutes must be given without steps, got --minutes {minutes} and --steps {steps}: leave one out"
        )
    # The value itself is left to the parser. How often to evaluate and to save then follows from the time.
    return dataclasses.replace(config, minutes=1.0, eval_every=None, checkpoint_every=None)


def _asks_for_help(args: Sequence[str]) -> bool:
    return "--help" in args or "-h" in args
