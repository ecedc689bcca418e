"""Writes work directories of weights that others trained."""

import dataclasses
import os
from collections.abc import Sequence

from kfpn.config.checks import require_local
from kfpn.config.model import ModelConfig
from kfpn.config.presets import preset
from kfpn.config.run import SamplingConfig
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from kfpn.weights.assign import assign_weights, model_config
from kfpn.weights.identify import PathLike, read_trained_weights
from kfpn.weights.makers.trained_weights import TrainedWeights

FOREIGN_PADDING = (
    "model.padding foreign, as where they were trained: an image's numbers depend on the padding that its batch adds; "
    "--model.padding zero turns that off"
)
"""What is said of weights whose network lets padding act."""


def import_weights(
    source: PathLike | TrainedWeights,
    output: PathLike,
    model: ModelConfig | None = None,
    class_names: Sequence[str] | None = None,
) -> TrainedWeights:
    """Writes a new work directory with trained weights and their settings, ready to predict, evaluate and fine-tune.

    Args:
        source: a file, a work directory or a name of `list_pretrained()`, see
            `kfpn.weights.identify.read_trained_weights`; or what that function returned.
        output: the folder to write, which does not exist or holds no run.
        model: the detector's settings; None: those that come with the weights.
        class_names: new names for the labels, in order; None: COCO's if the number of classes is COCO's, else
            "class 1", ...

    Returns:
        What was read.

    Raises:
        ValueError: if `output` holds a run, the number of names is not that of the classes, or the weights can't be
            used. Nothing is written then.
    """
    require_local("output", output)
    workdir = Workdir(output)
    if workdir.config.exists() or workdir.weights.exists():
        raise ValueError(f"output must be a folder without a run, got {str(output)!r}, which has one")
    trained = source if isinstance(source, TrainedWeights) else read_trained_weights(source)
    model = model or model_config(trained)
    names, ids = trained.names_of_classes()
    if class_names:
        names, ids = tuple(class_names), tuple(range(1, len(class_names) + 1))
    if trained.is_detector and len(names) != model.num_classes:
        raise ValueError(f"class_names must be {model.num_classes}, one a class, got {len(names)}")
    model = dataclasses.replace(model, num_classes=len(names))
    base = preset("coco")
    config = dataclasses.replace(
        base,
        workdir=str(output),
        init=trained.path if isinstance(source, TrainedWeights) else os.fspath(source),
        model=model,
        sampling=SamplingConfig(**trained.sampling),
        input=dataclasses.replace(base.input, **trained.input),
    )
    submodels = build_submodels(model)
    # The class names are not passed on: here they rename all labels in order, and do not choose among them.
    assign_weights(trained, submodels, vars(model))
    workdir.check_writable()
    # The weights come first, because a folder without a config.json does not count as a work directory yet.
    workdir.save_weights(submodels.weights_model)
    workdir.prepare(config, names, ids, trained.kind)
    return trained


def all_notes(trained: TrainedWeights, model: ModelConfig) -> list[str]:
    """Returns what people must know of weights: what the file did not say, and how padding acts in their network.

    Args:
        trained: the weights.
        model: of the detector that takes them.
    """
    return [*trained.notes, *([FOREIGN_PADDING] if model.padding == "foreign" else [])]
