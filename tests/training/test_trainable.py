import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.config.run import Config, OptimizerConfig, SamplingConfig
from kfpn.losses.training_losses import noise_shapes, training_losses
from kfpn.training.backward import Backward
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.optimizer import Optimizer
from kfpn.training.step import _ReplicaStep
from kfpn.weights.detector_parts import parts_of
from tests.losses.test_training_losses import batch_of
from tests.modeling import tiny

SAMPLING = {"rpn_batch": 32, "roi_batch": 16}
SMALL = {"norm": "bn", "backbone_width": 8, "pyramid_channels": 16, "pre_nms_train": 80, "post_nms_train": 50}
LOSSES = ["rpn_class", "rpn_box", "roi_class", "roi_box"]


def detector(**changes):
    """Returns a small detector with the same weights each time."""
    keras.utils.set_random_seed(5)
    return kfpn.build_detector(**dataclasses.asdict(tiny.config(**SMALL, **changes)))


def batch(number, boxes=3, noise=True, size=(64, 96), **changes):
    """Returns the batch of a step, with the samplers' noise."""
    made, drawn = batch_of(Config(model=tiny.config(**SMALL, **changes)), size=size, boxes=boxes, seed=number)
    return made | ({f"noise_{name}": value for name, value in drawn.items()} if noise else {})


class Rows(keras.callbacks.Callback):
    """Keeps the losses of each step."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, step, logs=None):
        self.rows.append(dict(logs))
        self.model.reset_metrics()  # Keras shows the mean of all steps of an epoch.


def fitted(model, batches, **options):
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), **options)
    rows = Rows()
    stacked = {name: np.stack([one[name] for one in batches]) for name in batches[0]}
    model.fit(tf.data.Dataset.from_tensor_slices(stacked), verbose=0, callbacks=[rows])
    return rows.rows


def own_steps(built, batches):
    """Returns the losses of the project's own step on the same batches, without the graph that it makes of it."""
    rule = OptimizerConfig(learning_rate=0.01, reference_batch=2, weight_decay=0.0, warmup_steps=0, milestones=())
    config = Config(batch_size=2, model=built.model_config, sampling=SamplingConfig(**SAMPLING), optimizer=rule)
    submodels, strategy = parts_of(built), make_strategy("one_device")
    optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
    step = _ReplicaStep(Backward(submodels, config, training_losses), config, optimizer, strategy, noise_shapes)
    batches = [{name: tf.constant(value) for name, value in one.items()} for one in batches]
    return [strategy.run(step.run, args=(one, step.trace(one))) for one in batches]


def test_the_losses_of_three_steps_of_fit_are_those_of_the_projects_own_step():
    batches = [batch(number) for number in range(3)]
    expected = own_steps(detector(), batches)
    built = detector()
    before = [variable.numpy() for variable in built.trainable_variables]
    rows = fitted(kfpn.trainable(built, **SAMPLING), batches, run_eagerly=True)
    assert [sorted(row) for row in rows] == [sorted((*LOSSES, "loss"))] * 3
    for row, own in zip(rows, expected, strict=True):
        for name, value in row.items():
            assert value == pytest.approx(float(own[name]), rel=1e-4), name
    assert rows[2]["loss"] != rows[0]["loss"]
    # The variables are the detector's own.
    assert any((old != new.numpy()).any() for old, new in zip(before, built.trainable_variables, strict=True))
