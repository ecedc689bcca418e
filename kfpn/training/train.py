"""`train(config)`: from a configuration to a work directory with a trained detector."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kfpn.config.run import Config, to_dict
from kfpn.data.fingerprint import fingerprint
from kfpn.data.formats import default_val_data, open_source
from kfpn.data.pipeline import named_errors, train_batches
from kfpn.data.proposal_table import ProposalTable, proposals_of, with_proposals
from kfpn.data.record import Source
from kfpn.evaluation.recall import evaluate_proposals
from kfpn.losses.training_losses import training_functions
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.checkpoint import Checkpoints, named_variables
from kfpn.runs.load import load_proposals_model
from kfpn.runs.lock import sole_training
from kfpn.runs.precision import dtype_policy
from kfpn.runs.workdir import Workdir
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.strategy import describe, make_strategy, replica_batch_size
from kfpn.training.distribution.worker_stubs import ReadCheckpoints, ReadWorkdir
from kfpn.training.interrupt import Interrupted, Interruption
from kfpn.training.loop import Loop
from kfpn.training.nonfinite.recorder import Recorder
from kfpn.training.optimizer import Optimizer
from kfpn.training.progress import say
from kfpn.training.results import build_evaluate, finish, finished, summary
from kfpn.training.step import build_train_step
from kfpn.weights.assign import assign_weights
from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers.trained_weights import TrainedWeights

Data = Source | str


class FixedProposals(NamedTuple):
    """The proposals of `config.proposals`: of the training images, and of those to evaluate on, if there are any."""

    train: ProposalTable
    validation: ProposalTable | None


def train(
    config: Config,
    source: Data | None = None,
    val_source: Data | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Trains a detector, or goes on with what `config.workdir` holds.

    Args:
        config: everything about the run; `model.num_classes` is taken from the data.
        source: what to train on; None: `config.data`.
        val_source: what to evaluate on; None: `config.val_data` or, without `source` as well, the validation
            split of `config.data`.
        strategy: None: `make_strategy(config.strategy)`.

    Returns:
        What final.json holds: COCO's twelve figures and `per_class` of the weights that were saved (the best), the
        last losses, `steps`, `best_step`, `last_AP`, `seconds` of training, `images_per_second`, and `proposals`, the
        recall of the same weights' proposals. Without validation data there are no figures, and on fixed proposals
        no recall. A worker of several that is not the chief returns {}.

    Raises:
        ValueError: for a work directory that can't be written or was made with other options, data that can't be
            used, weights to start from that can't be read or don't fit, proposals that are missing or of other images, a
            batch that replicas can't share, a loss that is not finite (see `kfpn.training.nonfinite.recorder`), or another training in the
            same work directory.
        SystemExit: after Ctrl-C (130) or SIGTERM (0), when all is saved.
    """
    if config.strategy == "multi_worker" and strategy is None:
        # Before anything that runs a TensorFlow op.
        strategy = make_strategy(config.strategy, cross_device=config.cross_device)
    cluster = Cluster(strategy)
    workdir = (Workdir if cluster.is_chief else ReadWorkdir)(config.workdir)
    workdir.check_writable()
    alone = sole_training(workdir.lock) if cluster.is_chief else nullcontext()
    with alone, Interruption() as stop:
        try:
            with stop.at_once():
                return _prepare(config, workdir, source, val_source, strategy, cluster)
        except Interrupted:
            say("stopped while no step was under way: nothing is lost; run the same command to go on")
            raise SystemExit(stop.exit_code) from None


def _prepare(
    config: Config,
    workdir: Workdir,
    source: Data | None,
    val_source: Data | None,
    strategy: tf.distribute.Strategy | None,
    cluster: Cluster,
) -> dict[str, Any]:
    """Opens and checks all that a run needs, then trains."""
    source, val_source = _open(config, source, val_source)
    fixed = _fixed_proposals(config, source, val_source)
    config = replace(config, model=replace(config.model, num_classes=len(source.class_names)))
    strategy = strategy or make_strategy(config.strategy, cross_device=config.cross_device)
    replica_batch_size(strategy, config.batch_size, config.accumulate)
    # A run that goes on has weights of its own: what it began with may be gone.
    trained = read_trained_weights(config.init) if config.init and not workdir.has_checkpoints() else None
    if not config.init:
        warn_of_frozen_weights(config)
    found = fingerprint(source, val_source)
    cluster.watch()
    cluster.require_same(
        "options and data",
        json.dumps([to_dict(config) | {"workdir": None}, list(source.class_names), found]),
        "start every worker with the same command",
    )
    workdir.prepare(config, source.class_names, source.category_ids, source.name, found)
    with dtype_policy(config.precision):
        return _train(config, workdir, source, val_source, strategy, trained, fixed, cluster)


def warn_of_frozen_weights(config: Config) -> None:
    """Warns when stages or norms are frozen: a fresh detector would keep its random weights there."""
    frozen = []
    if config.model.freeze_stages:
        frozen.append(f"model.freeze_stages {config.model.freeze_stages}")
    if config.model.norm == "frozen_bn":
        frozen.append("model.norm frozen_bn")
    if frozen:
        warnings.warn(
            f"{' and '.join(frozen)} keep what is random in a fresh detector: they are meant for pretrained weights. To train "
            "from scratch use --model.norm gn --model.norm-heads --model.freeze-stages 0",
            stacklevel=3,
        )


def _train(
    config: Config,
    workdir: Workdir,
    source: Source,
    val_source: Source | None,
    strategy: tf.distribute.Strategy,
    trained: TrainedWeights | None,
    fixed: FixedProposals | None,
    cluster: Cluster,
) -> dict[str, Any]:
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        submodels = build_submodels(config.model)
        # Before the optimizer, which then knows nothing of it.
        submodels.rpn.trainable = fixed is None
        if trained is not None:
            # Before the optimizer, whose moving average starts from the weights.
            assign_weights(trained, submodels, vars(config.model), source.class_names)
            say("; ".join([f"starts from {trained.path}: {trained.kind}", *trained.notes]))
        optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
    variables = named_variables(model=submodels.weights_model.variables, optimizer=optimizer.variables)
    keeper = Checkpoints if cluster.is_chief else ReadCheckpoints
    checkpoints = keeper(workdir.checkpoints, variables, config.keep_checkpoints)
    progress = checkpoints.restore()
    hint = "workdir must be one folder that all of them see"
    cluster.require_same("the step of the newest checkpoint", progress.step, hint)
    if progress.best_step and not workdir.weights.exists():
        # Someone removed the weights for inference: the next evaluation writes them again.
        progress.evaluated, progress.best_step, progress.best = 0, 0, {}
    cluster.gather(0)  # before the chief writes anything that the others look for
    final = finished(workdir) if min(progress.step, progress.evaluated) >= config.steps else None
    if final is not None:
        cluster.leave()
        say(f"{workdir.path} has finished its {config.steps} steps: {summary(final)}")
        return final
    workdir.drop_metrics_after(progress.step, progress.evaluated)
    say(describe(strategy, config.batch_size, config.accumulate))
    say(f"{source.name}: {len(source)} images, {len(source.class_names)} classes; work directory {workdir.path}")
    if progress.step:
        say(f"goes on from step {progress.step} of {config.steps}")
    evaluate = None
    if val_source is not None:
        evaluate = build_evaluate(config, workdir, submodels, val_source, fixed and fixed.validation)
    step = build_train_step(submodels, config, optimizer, strategy, *training_functions(config))
    step = _announce_shapes(step, config, strategy)

    def batches(start: int) -> tf.data.Dataset:
        found = train_batches(source, config, start)
        if fixed is None:
            return found
        return with_proposals(found, fixed.train, config, config.model.post_nms_train, augmented=True)

    def distributed(start: int) -> Iterator[Any]:
        return named_errors(strategy.experimental_distribute_dataset(batches(start)))

    recorder = Recorder(config, workdir, variables, batches, source)
    loop = Loop(
        config, workdir, submodels.weights_model, optimizer, step, checkpoints, progress, evaluate, cluster, recorder
    )
    loop.run(distributed)
    if not cluster.is_chief:
        cluster.leave()  # once the chief has finished
        return {}
    recall = None
    if val_source is not None and fixed is None:
        proposals_model = load_proposals_model(workdir.path)
        recall = evaluate_proposals(proposals_model, val_source, config, progress=sys.stderr.isatty())
    final = finish(config, workdir, progress, recall)
    cluster.leave()
    return final


def _open(config: Config, source: Data | None, val_source: Data | None) -> tuple[Source, Source | None]:
    val_data: Any = val_source if val_source is not None else config.val_data
    if val_data is None and source is None:
        val_data = default_val_data(config.data)
    opened = open_source(config.data if source is None else source, "train")
    if val_data is None:
        warnings.warn(
            "no validation data: AP is not measured, and the last weights are kept, not the best", stacklevel=3
        )
        return opened, None
    validation = open_source(val_data, "validation")
    if tuple(validation.class_names) != tuple(opened.class_names):
        raise ValueError(
            f"val_data must have the classes of data ({', '.join(opened.class_names)}), "
            f"got {', '.join(validation.class_names)}"
        )
    return opened, validation


def _fixed_proposals(config: Config, source: Source, val_source: Source | None) -> FixedProposals | None:
    if not config.proposals:
        return None
    validation = None if val_source is None else proposals_of(config.proposals, val_source)
    return FixedProposals(proposals_of(config.proposals, source), validation)


def _announce_shapes(step: Callable, config: Config, strategy: tf.distribute.Strategy) -> Callable:
    """Says so when a step will take long because it is compiled for a new canvas."""
    seen: set[tuple[int, ...]] = set()

    def announced(batch: Any) -> dict[str, tf.Tensor]:
        shape = tuple(strategy.experimental_local_results(batch["images"])[0].shape)
        if shape not in seen:
            seen.add(shape)
            verb = "compiles" if config.jit_compile else "traces"
            say(f"{verb} the step for images of {shape[1]} x {shape[2]}; this takes a while, once")
        return step(batch)

    return announced
