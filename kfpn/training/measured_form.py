"""Measures which form of a step is the fastest on this machine, where a run asks for it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kfpn.config.run import Compile, Config
from kfpn.runs.atomic_files import read_json, write_json
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.progress import say

MEASURED: tuple[Compile, ...] = ("whole", "islands")
"""The forms that are measured, values of `Config.compile`."""
TIMED_STEPS = 3


def with_measured_form(
    config: Config,
    workdir: Workdir,
    cluster: Cluster,
    variables: Mapping[str, keras.Variable],
    measure: Callable[[Config], Callable[[], Any]],
) -> Config:
    """Returns the configuration with the fastest form in the place of `compile` measure; a restart takes the form of the first start.

    Steps are taken from the same state in each form, and the state is then put back.

    Args:
        config: of the run.
        workdir: of the run, where the choice is kept.
        cluster: the processes that train together; the chief's times decide.
        variables: name -> variable: all that a step changes.
        measure: (config) -> a function that takes a step of that form and waits for it.
    """
    if config.compile != "measure":
        return config
    kept = read_json(workdir.compile) if workdir.compile.exists() else None
    if not (isinstance(kept, dict) and kept.get("compile") in MEASURED):
        before = {name: np.array(variable) for name, variable in variables.items()}
        seconds = {}
        for form in MEASURED:
            say(f"measures steps with compile {form}")
            seconds[form] = _timed(measure(replace(config, compile=form)))
            for name, value in before.items():
                variables[name].assign(value)
        fastest = cluster.gather(min(range(len(MEASURED)), key=lambda i: seconds[MEASURED[i]]))[0]
        kept = {"compile": MEASURED[fastest], "seconds": seconds}
        if cluster.is_chief:
            write_json(workdir.compile, kept)
    times = ", ".join(f"{form} {value:.3f} s" for form, value in kept["seconds"].items())
    say(f"compile {kept['compile']}: measured, {times} a step")
    return replace(config, compile=kept["compile"])


def _timed(step: Callable[[], Any]) -> float:
    """Returns the least seconds of some steps, after one that compiles."""
    step()
    seconds = []
    for _ in range(TIMED_STEPS):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
