"""Parses the line of `kfpn train` for the preset `auto`: what is given by hand stays, the rest is chosen once the data are open."""

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from kfpn.cli.report_command import report_on_training
from kfpn.cli.segment_options import task_of_line
from kfpn.config.auto_draft import as_option, nested, with_settings
from kfpn.config.auto_facts import WeightFacts
from kfpn.config.auto_numbers import SHIPPED
from kfpn.config.auto_rules import CHOSEN
from kfpn.config.run import Config
from kfpn.config.unused_options import require_used

Parse = Callable[[Config], Config]
"""Parses the line, with the defaults that are given."""

OF_THE_LINE = ("data", "val_data", "init", "proposals", "workdir")
"""Options that a run that goes on takes from the line alone: they say what it is, and a line without them is another run."""

_OF_EVERY_RUN = frozenset((*OF_THE_LINE, "preset", "model.num_classes"))
"""Fields that are not the default in any run."""


@dataclasses.dataclass(frozen=True)
class AutoTraining:
    """Holds a line of `kfpn train` whose settings are chosen once the data are open.

    Attributes:
        config: what the line says; what it doesn't say is not chosen yet.
        given: option -> value of what the line says.
        weights: that the run starts from; None: random weights.
        complete: function of the chosen settings, with sections as dicts: returns the whole configuration.
    """

    config: Config
    given: Mapping[str, Any]
    weights: WeightFacts | None
    complete: Callable[[Mapping[str, Any]], Config]

    @property
    def cpu_devices(self) -> int | None:
        """The option of this name."""
        return self.config.cpu_devices


def is_automatic(preset: str | None, data: str | None) -> bool:
    """Tells whether a line of `kfpn train` takes the preset `auto`.

    Args:
        preset: what `--preset` says; None: nothing.
        data: what `--data` says; None: nothing.
    """
    if preset is not None:
        return preset == "auto"
    return data is not None and data.partition(",")[0] != "shapes"


def parse_automatic(args: Sequence[str], start: Config, parse: Parse) -> Config | AutoTraining:
    """Parses a line of `kfpn train` for the preset `auto`.

    Args:
        args: the line, behind the program's name.
        start: with the data, the weights and the work directory of the line.
        parse: the parser.

    Returns:
        The configuration, where the work directory holds a run that has begun: its config.json gives what the line does not say.
        Else the line, to be completed once the data are open.
    """
    begun = _config_of_run(start.workdir)
    if begun is not None:
        of_the_line = {name: getattr(start, name) for name in OF_THE_LINE}
        if begun.init == SHIPPED and not any(word.partition("=")[0] == "--init" for word in args):
            of_the_line["init"] = SHIPPED  # It was chosen, and no line says it.
        config = parse(dataclasses.replace(begun, **of_the_line))
        if kept := kept_options(begun, given_options(args, config)):
            print(f"goes on with {' '.join(kept)}, as {start.workdir}/config.json says", flush=True)
        return config
    weights = None
    if start.init and start.init != SHIPPED:  # The rules know the network of these weights.
        from kfpn.weights.brought_settings import settings_of_weights

        weights = settings_of_weights(start.init, start.workdir, task_of_line(args))
    base = with_settings(start, weights.settings) if weights else start
    config = parse(_permissive(base, args))
    given = given_options(args, config)
    require_used(given, config)

    def complete(settings: Mapping[str, Any]) -> Config:
        return parse(with_settings(base, settings, nested(given)))

    return AutoTraining(config, given, weights, complete)


def kept_options(begun: Config, given: Collection[str]) -> list[str]:
    """Returns the options, as they are written, that a person gave a run at its beginning, and that a line does not repeat.

    What a rule chose can't be told from what a person gave in its place: such options are not among them, and neither are the
    settings that come with weights.

    Args:
        begun: the configuration of the run.
        given: options of the line, as the fields of `Config` are called.
    """
    if begun.preset != "auto":
        return []
    before, now = _option_values(Config()), _option_values(begun)
    of_weights = ("model.", "sampling.", "input.") if begun.init not in (None, SHIPPED) else ()
    names = [
        name
        for name, value in now.items()
        if value != before[name]
        and not (name in given or name in CHOSEN or name in _OF_EVERY_RUN)
        and not (name.startswith(of_weights) and name != "model.mask")
    ]
    return ["--mask" if name == "model.mask" else as_option(name, now[name]) for name in names]


def _option_values(config: Config) -> dict[str, Any]:
    """Returns option -> value, with the section before the name of a field: `{"model.p6": True}`."""
    flat: dict[str, Any] = {}
    for name, value in vars(config).items():
        fields = vars(value) if dataclasses.is_dataclass(value) else None
        flat |= {name: value} if fields is None else {f"{name}.{field}": held for field, held in fields.items()}
    return flat


def _config_of_run(workdir: str) -> Config | None:
    """Returns the configuration of the run that a work directory holds; None: no run has begun there."""
    if not os.path.exists(workdir):
        return None
    # This imports Keras: a mistyped option of a new run is told before.
    from kfpn.runs.workdir import Workdir

    run = Workdir(workdir)
    return run.read_config() if run.config.exists() and run.holds_training() else None


def train_automatically(command: AutoTraining) -> int:
    """Trains with what the rules choose once the data are open, says each choice, and returns the exit code."""
    from kfpn.training.automatic import choose_for_run
    from kfpn.training.progress import say
    from kfpn.training.train import train

    def choose(config: Config, source: Any, cluster: Any) -> Config:
        choices = choose_for_run(config, source, command.weights, command.given, cluster)
        if cluster.is_chief:
            say("\n".join(f"auto: {line}" for line in choices.lines))
        return command.complete(choices.settings)

    report_on_training(command.config, train(command.config, choose=choose))
    return 0


def _permissive(config: Config, args: Sequence[str]) -> Config:
    """Returns defaults that any single option goes with: what is chosen later is not in its way."""
    sides = dataclasses.replace(config.input, short_side=32, long_side=10**6, train_short_sides=())
    model = config.model
    if any(word.replace("_", "-") == "--model.no-p6" for word in args) and len(model.anchor_sizes) == 5:
        model = dataclasses.replace(model, p6=False, anchor_sizes=model.anchor_sizes[:4])
    return dataclasses.replace(config, input=sides, model=model)


def given_options(args: Sequence[str], config: Config) -> dict[str, Any]:
    """Returns option -> value of what a line says, also where that is the default.

    Args:
        args: the line.
        config: what the parser made of it.

    Returns:
        The options as the fields of `Config` are called: `{"model.p6": False}` for `--model.no-p6`.
    """
    known = _option_values(config)
    given: dict[str, Any] = {}
    for word in args:
        if word.startswith("--"):
            field = _option_field(word[2:].partition("=")[0].replace("-", "_"), known)
            given |= {field: known[field]} if field is not None else {}
    return given


def _option_field(word: str, known: Mapping[str, Any]) -> str | None:
    """Returns the field that an option sets: `model.no_p6` sets `model.p6`, and `pyramid` is short for `model.pyramid`."""
    section, _, last = word.rpartition(".")
    for field in (last, last.removeprefix("no_")):
        name = f"{section}.{field}" if section else field
        if name in known:
            return name
        ends = [held for held in known if not section and held.rpartition(".")[2] == field]
        if len(ends) == 1:
            return ends[0]
    return None
