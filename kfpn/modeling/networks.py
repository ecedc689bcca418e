"""Builds the network of a run: a detector's submodels, or those of a network that proposes segments."""

from kfpn.config.run import Config
from kfpn.modeling.segment_submodels import SegmentSubmodels, build_segment_submodels
from kfpn.modeling.submodels import Submodels, build_submodels


def build_network(config: Config) -> Submodels | SegmentSubmodels:
    """Builds the submodels that a run trains, with fresh weights; on fixed proposals the RPN's do not train.

    Args:
        config: the run's; `model.task` says which network it is.
    """
    if config.model.task == "segments":
        return build_segment_submodels(config.model)
    submodels = build_submodels(config.model)
    submodels.rpn.trainable = not config.proposals
    return submodels
