"""Tells which settings weights bring to the run that starts from them."""

import os
from collections.abc import Mapping
from typing import Any

from kfpn.config.auto_facts import WeightFacts
from kfpn.runs.workdir import WEIGHTS, Workdir


def settings_of_weights(init: str, workdir: str) -> WeightFacts:
    """Returns the fields of the sections model, sampling and input that come with weights.

    Whether the run has masks is not among them: its data must have masks too, so a person says it (--mask).

    Args:
        init: the weights, as for `kfpn train --init`.
        workdir: of the run that starts from them. Once it has checkpoints, its own settings hold: the weights may be gone.

    Raises:
        ValueError: for weights that can't be read.
    """
    run = Workdir(workdir)
    if not (run.has_checkpoints() and run.config.exists() and run.read_config().init == init):
        # A work directory tells its settings. To build its network here would start TensorFlow before its devices are chosen.
        run = Workdir(os.path.expanduser(init).removesuffix(WEIGHTS) or ".")
    if run.config.exists():
        config = run.read_config()
        if config.model.task == "segments":
            raise ValueError(f"init must be weights of a detector, got {init}, which was trained with --task segments")
        return WeightFacts(
            _without_mask(vars(config.model)), vars(config.sampling), vars(config.input), is_detector=True
        )
    from kfpn.weights.application_weights import brought_by_application, is_application

    if is_application(init):  # Its network, too, is not built before the devices are chosen.
        return WeightFacts(brought_by_application(init), {}, {}, is_detector=False)
    from kfpn.weights.identify import read_trained_weights

    trained = read_trained_weights(init)
    return WeightFacts(_without_mask(trained.model), trained.sampling, trained.input, trained.is_detector)


def _without_mask(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name != "mask"}
