"""Holds what a run is built from, builds it, and restores it from its newest checkpoint."""

import random
import time
from dataclasses import dataclass

import keras
import numpy as np

from kfpn.config.run import Config
from kfpn.modeling.networks import build_network
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.runs.checkpoint import Checkpoints, Progress, named_variables
from kfpn.runs.workdir import Workdir
from kfpn.training.backends.training_backend import TrainingBackend
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.worker_stubs import ReadCheckpoints
from kfpn.training.optimizer import Optimizer
from kfpn.training.pace import Pace
from kfpn.training.progress import say
from kfpn.training.run_data import RunData
from kfpn.training.schedule import PlannedSchedule
from kfpn.training.time_budget import TimeBudget
from kfpn.weights.assign import assign_weights
from kfpn.weights.import_weights import all_notes
from kfpn.weights.makers.trained_weights import TrainedWeights


@dataclass(frozen=True)
class Setup:
    """Holds what a run is built from, opened and checked.

    Attributes:
        config: the run's configuration, with the number of classes of the data.
        workdir: the run's work directory, prepared.
        data: the run's data.
        backend: shares the work between devices.
        initial_weights: weights to start from; None: random weights, or those of the newest checkpoint.
        started: `time.monotonic()` when the command began, or the call of `train`.
    """

    config: Config
    workdir: Workdir
    data: RunData
    backend: TrainingBackend
    initial_weights: TrainedWeights | None
    started: float

    @property
    def cluster(self) -> Cluster:
        """The processes that train together."""
        return self.backend.cluster


@dataclass(frozen=True)
class Trainee:
    """Holds what the steps of a run change.

    Attributes:
        submodels: of the detector.
        optimizer: of its trainable variables.
        variables: name in a checkpoint -> variable: the whole state of the run.
        build_seconds: seconds that it took to build them.
    """

    submodels: Submodels | SegmentSubmodels
    optimizer: Optimizer
    variables: dict[str, keras.Variable]
    build_seconds: float


def build_trainee(setup: Setup) -> Trainee:
    """Builds the detector and its optimizer, with the weights that the run starts from."""
    config, begun = setup.config, time.monotonic()
    if keras.backend.backend() == "tensorflow":
        keras.utils.set_random_seed(config.seed)
    else:  # Keras' function would import TensorFlow. Its initializers draw their seeds by `random`.
        random.seed(config.seed)
        np.random.seed(config.seed)
    with setup.backend.scope():
        # What does not train is settled before the optimizer is made, which then has no variables of it.
        submodels = build_network(config)
        if (initial := setup.initial_weights) is not None:
            # This comes before the optimizer, because its moving average starts from the weights.
            assign_weights(initial, submodels, vars(config.model), setup.data.source.class_names)
            say("; ".join([f"starts from {initial.path}: {initial.kind}", *all_notes(initial, config.model)]))
        optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
    variables = named_variables(model=submodels.weights_model.variables, optimizer=optimizer.variables)
    return Trainee(submodels, optimizer, variables, time.monotonic() - begun)


def restore_run(setup: Setup, trainee: Trainee) -> tuple[Checkpoints, Progress]:
    """Restores the newest checkpoint, if there is one, on all workers."""
    workdir, cluster = setup.workdir, setup.cluster
    kind = Checkpoints if cluster.is_chief else ReadCheckpoints
    checkpoints = kind(workdir.checkpoints, trainee.variables, setup.config.keep_checkpoints)
    progress = checkpoints.restore()
    hint = "workdir must be one folder that all of them see"
    cluster.require_same("the step of the newest checkpoint", progress.step, hint)
    if progress.best_step and not workdir.weights.exists():
        # Someone removed the weights for inference: the next evaluation writes them again.
        progress.evaluated, progress.best_step, progress.best, progress.stale = 0, 0, {}, 0
    cluster.gather(0)  # All workers look for the weights above before the chief writes them.
    return checkpoints, progress


def make_pace(setup: Setup, trainee: Trainee, progress: Progress) -> Pace:
    """Makes what says when the run evaluates, saves and ends: after its steps, or after its minutes."""
    config = setup.config
    if config.minutes is None:
        return Pace(config)
    budget = TimeBudget(config, setup.workdir, progress, setup.cluster, setup.started)
    budget.costs.known["building"] = trainee.build_seconds
    budget.costs.has_recall = setup.data.has_recall
    budget.steps.shapes = setup.data.canvases(config)
    if isinstance(trainee.optimizer.schedule, PlannedSchedule):
        budget.use(trainee.optimizer.schedule.follow)
    return budget
