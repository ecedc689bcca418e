"""Trains a detector from a configuration: opens the data, builds, resumes, runs the loop and writes the results."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from kfpn.config.checks import require_local
from kfpn.config.old_preset import warn_of_coco
from kfpn.config.run import Config, to_dict
from kfpn.data.class_table import describe_source
from kfpn.data.fingerprint import fingerprint
from kfpn.data.object_counts import warn_of_crowded_images
from kfpn.data.record import Source
from kfpn.data.repeat_factors import describe_order
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.submodels import Submodels
from kfpn.runs.checkpoint import Checkpoints, Progress
from kfpn.runs.command_start import command_start
from kfpn.runs.kept_backbone import with_kept_backbone
from kfpn.runs.lock import sole_training
from kfpn.runs.own_folder import require_own_config
from kfpn.runs.precision import dtype_policy
from kfpn.runs.workdir import Workdir
from kfpn.training.announced_shapes import announce_shapes
from kfpn.training.auto_weights import config_with_found_init
from kfpn.training.backends.training_backend import TrainingBackend, open_backend
from kfpn.training.best_weights import BEST_BY
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.worker_stubs import ReadWorkdir
from kfpn.training.frozen_weights import warn_of_frozen_weights
from kfpn.training.interrupt import Interrupted, Interruption
from kfpn.training.loop import Loop, Run
from kfpn.training.measured_form import with_measured_form
from kfpn.training.nonfinite.recorder import Recorder
from kfpn.training.pace import Pace
from kfpn.training.precision_choice import with_precision
from kfpn.training.profile_steps import StepProfile
from kfpn.training.progress import say
from kfpn.training.results import measure_recall, read_final, summary_line, write_final
from kfpn.training.run_data import RunData, open_run_data
from kfpn.training.segment_validation import SegmentValidationRun
from kfpn.training.setup import Setup, Trainee, build_trainee, make_pace, restore_run
from kfpn.training.step_memory import explain_memory
from kfpn.training.time_budget import TimeBudget
from kfpn.training.validation_run import ValidationRun
from kfpn.weights.identify import read_trained_weights

if TYPE_CHECKING:
    import tensorflow as tf


def train(
    config: Config,
    source: Source | str | None = None,
    val_source: Source | str | None = None,
    strategy: "tf.distribute.Strategy | None" = None,
    choose: Callable[[Config, Source, Cluster], Config] | None = None,
) -> dict[str, Any]:
    """Trains a detector, or goes on with the run that `config.workdir` holds.

    Args:
        config: everything about the run; `model.num_classes` is taken from the data.
        source: what to train on; None: `config.data`.
        val_source: what to evaluate on; None: `config.val_data` or, without `source` as well, the validation split of `config.data`.
        strategy: of TensorFlow, where that is Keras' backend; None: as `config.strategy` says.
        choose: returns the configuration once the data are open, as the preset `auto` does; None: `config` is all of it.

    Returns:
        The content of final.json: the figures and `per_class` of the weights that were saved (the best), the last losses, `steps`,
        `best_step`, `last_AP`, `last` (figures and `step` of the last evaluation), `seconds`, `images_per_second`, and `proposals`,
        the recall; no figures without validation data, no recall on fixed proposals. Workers that are not the chief return {}.

    Raises:
        ValueError: if Keras' backend is neither TensorFlow nor JAX or can't do what `config` asks for, if the work directory can't be
            written, has other options or is in use, if data, proposals or weights can't be used, if the replicas can't share a batch, or
            if a loss is not finite (see `kfpn.training.nonfinite`).
        SystemExit: after Ctrl-C (130) or SIGTERM (0), when all is saved.
    """
    started = command_start()
    for name in ("workdir", "init", "proposals"):
        require_local(name, getattr(config, name))
    backend = open_backend(config, strategy)
    cluster = backend.cluster
    config = config_with_found_init(config, cluster)
    workdir = (Workdir if cluster.is_chief else ReadWorkdir)(config.workdir)
    is_new = not workdir.path.exists()
    workdir.check_writable()
    if not workdir.holds_training():
        require_own_config(workdir, "workdir")
    unused = workdir.removed_if_unused() if cluster.is_chief and is_new else nullcontext()
    lock = sole_training(workdir.lock) if cluster.is_chief else nullcontext()
    with lock, unused, Interruption() as stop:
        try:
            with stop.at_once():
                data = open_run_data(config, source, val_source)
                config = choose(config, data.source, cluster) if choose else config
                return _train_opened(_open(config, workdir, data, backend, started))
        except Interrupted:
            say("stopped while no step was under way: nothing is lost; run the same command to go on")
            raise SystemExit(stop.exit_code) from None


def _open(
    config: Config,
    workdir: Workdir,
    data: RunData,
    backend: TrainingBackend,
    started: float,
) -> Setup:
    """Opens what a run is built from, and checks that it fits the work directory and the other workers."""
    source, cluster = data.source, backend.cluster
    if data.val_source is not None and config.model.task == "detections":
        warn_of_crowded_images(data.val_source, config.model)
    config = replace(config, model=replace(config.model, num_classes=len(source.class_names)))
    config = with_precision(config, workdir, cluster)
    backend = backend.with_devices(config)
    # A run that goes on has its own weights: the file that it began with may be gone.
    initial_weights = None
    if config.init and not workdir.has_checkpoints():
        initial_weights = read_trained_weights(config.init, config.model.task)
    if not config.init:
        warn_of_frozen_weights(config)
    if cluster.is_chief and not workdir.has_checkpoints():
        warn_of_coco(config)
    data_fingerprint = fingerprint(source, data.val_source)
    cluster.watch()
    cluster.require_same(
        "options and data",
        json.dumps([to_dict(config) | {"workdir": None}, list(source.class_names), data_fingerprint]),
        "start every worker with the same command",
    )
    workdir.prepare(config, source.class_names, source.category_ids, source.name, data_fingerprint)
    config = with_kept_backbone(workdir.path, config)
    return Setup(backend.trained_config(config), workdir, data, backend, initial_weights, started)


def _train_opened(setup: Setup) -> dict[str, Any]:
    """Trains an opened run to its last step: builds, resumes, loops and finishes."""
    setup = replace(setup, config=setup.backend.with_determinism(setup.config))
    with dtype_policy(setup.config.precision):
        trainee = build_trainee(setup)
        checkpoints, progress = restore_run(setup, trainee)
        pace = make_pace(setup, trainee, progress)
        final = _read_finished(setup, progress, pace)
        if final is None:
            _loop(setup, trainee, checkpoints, progress, pace)
            final = _finish(setup, progress, pace)
        setup.cluster.leave()  # The other workers wait here until the chief has finished.
        return final


def _read_finished(setup: Setup, progress: Progress, pace: Pace) -> dict[str, Any] | None:
    """Returns the content of final.json if the run has come to its end; None: there is something left to do."""
    patience = setup.config.patience
    finished = min(progress.step, progress.evaluated) >= pace.last
    stopped = patience is not None and progress.stale >= patience and progress.evaluated == progress.step
    final = read_final(setup.workdir) if finished or stopped else None
    if final is not None and finished:
        say(f"{setup.workdir.path} has finished its {pace.last} steps: {summary_line(final)}")
    elif final is not None:
        say(
            f"{setup.workdir.path} has stopped at step {progress.step}, after {progress.stale} evaluations without a better "
            f"{progress.last.get(BEST_BY, 'AP')}; a larger --patience goes on: {summary_line(final)}"
        )
    return final


def _loop(setup: Setup, trainee: Trainee, checkpoints: Checkpoints, progress: Progress, pace: Pace) -> None:
    """Runs the loop from the restored step to the last one."""
    config, workdir, data, backend = setup.config, setup.workdir, setup.data, setup.backend
    submodels, optimizer, source = trainee.submodels, trainee.optimizer, data.source
    workdir.drop_metrics_after(progress.step, progress.evaluated)
    say(backend.describe(config))
    say(describe_source(source))
    for line in describe_order(source, config.input):
        say(line)
    if data.val_source is not None and data.val_source.name != source.name:
        say(describe_source(data.val_source))
    if line := data.rough_measure():
        say(line)
    say(f"work directory {workdir.path}")
    if progress.step:
        say(f"goes on from step {progress.step}" + (f" of {pace.last}" if pace.last_is_known else ""))
    evaluate = _validation_run(setup, submodels)
    config = _with_form(setup, trainee, progress)
    step = backend.train_step(submodels, config, optimizer)
    step = explain_memory(announce_shapes(step, config, backend.local_shape), config, backend.shares)
    if isinstance(pace, TimeBudget):
        step = pace.steps.of(step, backend.local_shape)
        pace.probe = None if evaluate is None else evaluate.probe
    profile = StepProfile(config.profile, workdir.path / "profile", progress, pace.last, setup.cluster.is_chief)

    run = Run(
        config=config,
        workdir=workdir,
        weights_model=submodels.weights_model,
        optimizer=optimizer,
        step=profile.of(step),
        checkpoints=checkpoints,
        progress=progress,
        evaluate=evaluate,
        keep_evaluation=evaluate.write_detections if isinstance(evaluate, ValidationRun) and config.report else None,
        cluster=setup.cluster,
        recorder=Recorder(config, workdir, trainee.variables, partial(backend.whole_batches, data, config), source),
        pace=pace,
    )
    with profile:
        Loop(run).train(partial(backend.batches, data, config))


def _with_form(setup: Setup, trainee: Trainee, progress: Progress) -> Config:
    """Returns the configuration with a form of the steps in the place of `compile` measure."""
    config, backend = setup.config, setup.backend

    def measured(asked: Config) -> Callable[[], Any]:
        step = explain_memory(backend.train_step(trainee.submodels, asked, trainee.optimizer), config, backend.shares)
        batch = next(backend.batches(setup.data, config, progress.step))
        return lambda: float(step(batch)["loss"])

    return with_measured_form(config, setup.workdir, setup.cluster, trainee.variables, measured)


def _validation_run(
    setup: Setup, submodels: Submodels | SegmentSubmodels
) -> ValidationRun | SegmentValidationRun | None:
    """Makes what evaluates the weights of a run; None without validation data."""
    config, workdir, data = setup.config, setup.workdir, setup.data
    if data.val_source is None:
        return None
    if isinstance(submodels, SegmentSubmodels):
        return SegmentValidationRun(config, workdir, submodels, data.val_source, setup.backend)
    return ValidationRun(config, workdir, submodels, data.val_source, data.val_proposals, setup.backend)


def _finish(setup: Setup, progress: Progress, pace: Pace) -> dict[str, Any]:
    """Measures the recall of the proposals and writes final.json; workers that are not the chief return {}."""
    if not setup.cluster.is_chief:
        return {}
    recall = None
    if setup.data.val_source is not None and setup.data.has_recall and pace.fits_recall():
        recall = measure_recall(setup.config, setup.workdir, setup.data.val_source)
    final = write_final(setup.config, setup.workdir, progress, recall, pace.figures())
    pace.note_time(at_once=True)
    return final
