"""`import_weights`: from a checkpoint that others trained to a work directory of kfpn's."""

import dataclasses
import os
from collections.abc import Sequence

from kfpn.config.model import ModelConfig
from kfpn.config.presets import preset
from kfpn.config.run import SamplingConfig
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from kfpn.weights.assign import assign_weights, model_config
from kfpn.weights.identify import PathLike, read_trained_weights
from kfpn.weights.makers.trained_weights import TrainedWeights


def import_weights(
    source: PathLike | TrainedWeights,
    output: PathLike,
    model: ModelConfig | None = None,
    class_names: Sequence[str] | None = None,
) -> TrainedWeights:
    """Writes a fresh work directory with the weights and settings of a trained: ready to predict, evaluate, fine-tune.

    Args:
        source: see `kfpn.weights.identify.read_trained_weights`, or what it returned.
        output: folder that is not there or holds no run.
        model: the detector's settings; None: those that come with the weights.
        class_names: of the labels, in order; None: COCO's where the number of classes is COCO's, else "class 1", ...

    Returns:
        What was read.

    Raises:
        ValueError: if `output` holds a run, the number of names is not that of the classes, or the checkpoint can't be
            used. Nothing is written then.
    """
    files = Workdir(output)
    if files.config.exists() or files.weights.exists():
        raise ValueError(f"output must be a folder without a run, got {str(output)!r}, which has one")
    trained = source if isinstance(source, TrainedWeights) else read_trained_weights(source)
    model = model or model_config(trained)
    names, ids = trained.names_of_classes()
    if class_names:
        names, ids = tuple(class_names), tuple(range(1, len(class_names) + 1))
    if trained.is_detector and len(names) != model.num_classes:
        raise ValueError(f"class_names must be {model.num_classes}, one a class, got {len(names)}")
    model = dataclasses.replace(model, num_classes=len(names))
    sampling = SamplingConfig(**trained.sampling)
    origin = trained.path if isinstance(source, TrainedWeights) else os.fspath(source)
    base = preset("coco")
    config = dataclasses.replace(
        base,
        workdir=str(output),
        init=origin,
        model=model,
        sampling=sampling,
        input=dataclasses.replace(base.input, **trained.input),
    )
    submodels = build_submodels(model)
    # Without names: `class_names` renames the labels, it doesn't choose among them.
    assign_weights(trained, submodels, vars(model))
    files.check_writable()
    # The weights first: what has no config.json is no work directory yet.
    files.save_weights(submodels.weights_model)
    files.prepare(config, names, ids, trained.kind)
    return trained
