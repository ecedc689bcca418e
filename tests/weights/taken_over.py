"""A foreign checkpoint taken over into a network, step by step as kfpn does it."""

from kfpn.modeling.submodels import build_submodels
from kfpn.weights.assign import apply, model_config, read_checkpoint


def imported(path):
    """Returns the checkpoint and the submodels that hold its weights."""
    checkpoint = read_checkpoint(path)
    config = model_config(checkpoint)
    submodels = build_submodels(config)
    apply(checkpoint, submodels, vars(config))
    return checkpoint, submodels
