"""Imports weights of other projects into a detector, by the same steps as kfpn."""

from kfpn.modeling.submodels import build_submodels
from kfpn.weights.assign import assign_weights, model_config
from kfpn.weights.identify import read_trained_weights


def imported(path):
    """Returns the trained weights and the submodels that hold them."""
    trained = read_trained_weights(path)
    config = model_config(trained)
    submodels = build_submodels(config)
    assign_weights(trained, submodels, vars(config))
    return trained, submodels
