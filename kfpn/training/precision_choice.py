"""Chooses the precision of a run where none is asked for."""

from dataclasses import replace

from kfpn.config.fast_precision import fast_precision
from kfpn.config.run import Config
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.machine import machine_facts
from kfpn.training.progress import say


def with_precision(config: Config, workdir: Workdir, cluster: Cluster) -> Config:
    """Returns the configuration with a dtype policy in the place of "auto": what the run began with, or what its devices are fast in.

    Args:
        config: of the run.
        workdir: of the run; a run that goes on keeps its precision.
        cluster: the processes that train together; each calls this at the same point.
    """
    cluster.require_same("the precision", config.precision, "start every worker with the same command")
    if config.precision != "auto":
        return config
    is_begun = workdir.config.exists() and workdir.holds_training()
    kept = workdir.read_config().precision if is_begun else "auto"
    facts = machine_facts(config, cluster)
    chosen, reason = (kept, "as the run began") if kept != "auto" else fast_precision(facts)
    say(f"precision {chosen}: {reason}")
    return replace(config, precision=chosen)
