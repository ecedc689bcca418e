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
from kfpn.weights.detector_parts import submodels_of
from tests.training import made_up
from tests.training.small_detector import LOSSES, SAMPLING, batch, detector


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
    submodels, strategy = submodels_of(built), make_strategy("one_device")
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


def test_images_of_sides_that_are_not_known_before_have_the_same_losses():
    model = kfpn.trainable(detector(), **SAMPLING)
    batches = [batch(0, boxes=3), batch(1, boxes=40, size=(96, 64))]
    known = {"images": (None, None, None, 3), "image_sizes": (None, 2), "gt_boxes": (None, None, 4)}
    spec = {name: tf.TensorSpec(known.get(name, (None, None)), value.dtype) for name, value in batches[0].items()}
    traced = tf.function(lambda values: model(values, training=False), input_signature=[spec])
    for one in batches:
        got, expected = traced(one), model(one, training=False)
        for name in LOSSES:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, err_msg=name)


def test_noise_is_drawn_for_batches_that_bring_none_and_a_seed_draws_the_same():
    built, without = detector(), batch(0, noise=False)
    one, again = (kfpn.trainable(built, seed=4, **SAMPLING) for _ in range(2))
    first, second = one(without), one(without)
    assert float(first["rpn_class"][0]) != float(second["rpn_class"][0])
    for name, value in again(without).items():
        np.testing.assert_allclose(value, first[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda one: {k: v for k, v in one.items() if "noise" not in k},
            "^batch must have noise_rpn and noise_roi, got none",
        ),
        (lambda one: {k: v for k, v in one.items() if k != "noise_roi"}, "^batch must have noise_roi beside noise_rpn"),
        (lambda one: {**one, "noise_rpn": one["noise_rpn"][:, :7]}, "^noise_rpn must have 1536 values an image, got 7"),
        (lambda one: {k: v for k, v in one.items() if k != "gt_crowd"}, "gt_crowd is missing; kfpn.dataset makes"),
    ],
)
def test_a_batch_that_lacks_something_is_refused(change, message):
    model = kfpn.trainable(detector(), seed=None, **SAMPLING)
    with pytest.raises(ValueError, match=message):
        model(change(batch(0)))


def test_what_compile_and_trainable_can_not_do_is_refused_in_one_line():
    built = detector()
    with pytest.raises(ValueError, match="loss must be left out, got 'mse': a detector has losses of its own"):
        kfpn.trainable(built).compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"unknown option sampling\.'rpn_bath'; did you mean sampling\.'rpn_batch'"):
        kfpn.trainable(built, rpn_bath=3)
    with pytest.raises(ValueError, match=r"detector must be a model of kfpn\.build_detector or kfpn\.load_detector"):
        kfpn.trainable(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))


def test_the_parts_of_a_detector_from_a_file_are_those_of_the_one_that_was_saved(tmp_path):
    built = kfpn.build_detector(
        2,
        "resnet18",
        norm="bn",
        backbone_width=8,
        pyramid_channels=8,
        head_width=8,
        freeze_stages=0,
        mask=True,
        padded=True,
    )
    built.save(tmp_path / "detector.keras")
    again = keras.models.load_model(tmp_path / "detector.keras")
    own, loaded = submodels_of(built), submodels_of(again)
    assert again.model_config == built.model_config
    own.weights_model.save_weights(tmp_path / "own.weights.h5")
    loaded.weights_model.load_weights(tmp_path / "own.weights.h5")
    for one, other in zip(own.weights_model.weights, loaded.weights_model.weights, strict=True):
        assert one.path.split("/")[-2:] == other.path.split("/")[-2:]
        np.testing.assert_array_equal(one, other)
    assert {id(v) for v in own.weights_model.variables} == {id(v) for v in built.variables}


def test_the_scale_of_the_loss_goes_with_the_policy_of_the_detector():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        built = detector()
    finally:
        keras.config.set_dtype_policy(previous)
    model = kfpn.trainable(built, **SAMPLING)
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    losses = model.train_on_batch(batch(0), return_dict=True)
    assert all(np.isfinite(value) for value in losses.values())


def test_an_image_that_can_not_be_read_is_named_in_one_line():
    built = detector(num_classes=2)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=64)
    records = made_up.source(0, 2)
    damaged = [dataclasses.replace(records[0], image=b"no image"), records[1]]
    model = kfpn.trainable(built, **SAMPLING)
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=r"^picture 0: .*image"):
        model.fit(kfpn.dataset(kfpn.IterableSource(damaged, ("green", "red")), built, 2), verbose=0)
