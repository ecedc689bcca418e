"""Replaces `init="auto"` in a run's configuration by the checkpoint that was found, if it fits the network."""

from dataclasses import replace

from kfpn.config.run import Config
from kfpn.modeling.heads.mask import channels_of_masks
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.progress import say
from kfpn.weights.auto_init import AUTO, auto_init
from kfpn.weights.built_detector import SETTINGS_THAT_MUST_MATCH, mismatched_settings
from kfpn.weights.fitted_segments import BACKBONE_SETTINGS
from kfpn.weights.identify import read_trained_weights


def config_with_found_init(config: Config, cluster: Cluster) -> Config:
    """Returns a configuration with the checkpoint that `init="auto"` finds; without it, the configuration as it is.

    The command line has its checkpoint already, because the network's settings come with it. In Python the network is given,
    so a checkpoint of another network is left out, which is said.

    Args:
        config: of the run.
        cluster: the processes that train together; the first one looks.
    """
    if config.init != AUTO:
        return config
    begun = Workdir(config.workdir).config.exists()
    model = config.model
    weights = auto_init(model.backbone, config.workdir, cluster.index, cluster.several, model.mask, model.cascade)
    if weights is not None and not begun:  # A run that has begun fits, and its file may be gone.
        own = read_trained_weights(weights).model
        names = [*SETTINGS_THAT_MUST_MATCH, "backbone_width", "pyramid_channels", "head_width"]
        if own.get("mask"):
            names.append("mask_channels")
        if model.task == "segments":  # The rest may be another one, and then stays fresh.
            names = [*BACKBONE_SETTINGS, "backbone_width"]
        built = {**vars(config.model), "mask_channels": channels_of_masks(config.model)}
        if other := mismatched_settings(names, built, own):
            say(f"init auto: {weights} does not fit, it needs {', '.join(other)}; starts from random weights")
            weights = None
    return replace(config, init=weights)
