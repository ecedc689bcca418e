"""Chooses the settings of a run from its data, its machine and its weights, and offers that in Python."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfpn.config.auto_draft import nested, with_settings
from kfpn.config.auto_facts import Facts, WeightFacts
from kfpn.config.auto_numbers import SHIPPED
from kfpn.config.auto_rules import Choices, choose_settings
from kfpn.config.run import Config
from kfpn.config.unused_options import require_used
from kfpn.data.data_facts import count_facts
from kfpn.data.dataset_checks import check_training_set
from kfpn.data.formats import run_name
from kfpn.data.opening_warnings import without_messages
from kfpn.data.own_split import open_run_sources
from kfpn.data.record import Source
from kfpn.training.machine import machine_facts

if TYPE_CHECKING:
    from kfpn.training.distribution.cluster import Cluster


def auto_config(
    data: str | Source,
    init: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Config:
    """Returns the configuration that `kfpn train --data DATA` chooses: the preset `auto`, for `kfpn.train`.

    The data are opened and counted, but no image is read for it. What is odd about them is said when the run opens them, not here.

    Args:
        data: what to train on, in one of the forms of `kfpn train --data`, or a source: give that to `kfpn.train` as well.
        init: weights to start from, as for `kfpn train --init`; None: random weights.
        given: option -> value that the rules leave as they are and reckon with, such as `{"steps": 500, "input.short_side": 320,
            "workdir": "runs/mine"}`; a section of the options is a prefix with a dot.

    Returns:
        The whole configuration; `str(kfpn.auto_config(...))` shows it. The same data, weights, machine and version of kfpn give the
        same one.

    Raises:
        ValueError: for data or weights that can't be used, for an unknown option, and for values that don't go together.
    """
    options = nested(given or {})
    config = start_config(data if isinstance(data, str) else data.name, init)
    _require_known(config, options)
    # The choice needs where the data are and how they are split, but sizes that are given would not fit those not chosen yet.
    opening = with_settings(config, {name: value for name, value in options.items() if not isinstance(value, dict)})
    with without_messages():
        source = open_run_sources(opening)[0] if isinstance(data, str) else data
        check_training_set(source)
    weights = None
    if init not in (None, SHIPPED):  # The rules know the network of these weights.
        from kfpn.weights.brought_settings import settings_of_weights

        weights = settings_of_weights(init, opening.workdir, options.get("model", {}).get("task", "detections"))
    choices = choose_for_run(opening, source, weights, given or {})
    complete = with_settings(config, weights.settings if weights else {}, choices.settings, options)
    require_used(given or {}, complete)
    return complete


def start_config(data: str, init: str | None) -> Config:
    """Returns what the preset `auto` starts from: the fields' defaults, the data, a work directory named after them, and the weights."""
    return Config(data=data, workdir=f"runs/{run_name(data)}", init=init, preset="auto")


def choose_for_run(
    config: Config,
    source: Source,
    weights: WeightFacts | None,
    given: Mapping[str, Any],
    cluster: "Cluster | None" = None,
) -> Choices:
    """Returns what the rules choose for a run.

    Args:
        config: of the run, as far as it is known: the strategy and the devices count.
        source: what the run trains on.
        weights: to start from; None: random weights.
        given: option -> value, as for `auto_config`.
        cluster: of the run; None: this process is alone.
    """
    return choose_settings(Facts(count_facts(source), machine_facts(config, cluster), weights), given)


def _require_known(config: Config, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        section = getattr(config, name, None)
        if not hasattr(config, name) or dataclasses.is_dataclass(section) != isinstance(value, dict):
            raise ValueError(
                f"given must name options of kfpn train, got {name!r}: write a section's as 'input.short_side'"
            )
        unknown = [field for field in value if not hasattr(section, field)] if isinstance(value, dict) else []
        if unknown:
            raise ValueError(
                f"given must name options of kfpn train, got '{name}.{unknown[0]}'; known are {', '.join(vars(section))}"
            )
