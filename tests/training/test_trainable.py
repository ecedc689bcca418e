import dataclasses
import json
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.config.run import Config, OptimizerConfig, SamplingConfig
from kfpn.runs.precision import dtype_policy
from kfpn.weights.detector_parts import submodels_of
from tests.modeling import tiny
from tests.training import made_up
from tests.training.small_detector import LOSSES, SAMPLING, SMALL, batch, detector


class Rows(keras.callbacks.Callback):
    """Keeps the losses of each step."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, step, logs=None):
        self.rows.append(dict(logs))
        self.model.reset_metrics()  # Keras shows the mean of all steps of an epoch.


def test_the_losses_of_twenty_steps_of_fit_are_those_of_kfpn_train(tmp_path):
    source = made_up.source(0, 8)
    rule = OptimizerConfig(learning_rate=0.01, reference_batch=2, weight_decay=0.0, warmup_steps=0, milestones=())
    config = Config(
        workdir=str(tmp_path), steps=20, batch_size=2, log_every=1, jit_compile=False, report=False, optimizer=rule,
        model=tiny.config(**SMALL, num_classes=2), sampling=SamplingConfig(**SAMPLING), input=kfpn.InputConfig(64, 64),
    )  # fmt: skip
    kfpn.train(config, source)
    own = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    keras.utils.set_random_seed(config.seed)
    built = kfpn.build_detector(**dataclasses.asdict(config.model))
    before = [variable.numpy() for variable in built.trainable_variables]
    model, rows = kfpn.trainable(built, **SAMPLING), Rows()
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True
    )  # To trace the graph takes as long as 40 steps.
    model.fit(kfpn.dataset(source, config, 2), epochs=5, verbose=0, callbacks=[rows])

    assert [sorted(row) for row in rows.rows] == [sorted((*LOSSES, "loss"))] * 20
    for step, (row, expected) in enumerate(zip(rows.rows, own, strict=True)):
        for name, value in row.items():
            assert value == pytest.approx(expected[name], rel=1e-3, abs=1e-6), (step, name)
    assert rows.rows[19]["loss"] < rows.rows[0]["loss"]
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


def test_noise_is_drawn_for_batches_that_bring_none_and_a_seed_draws_the_same(tmp_path):
    built, without = detector(), batch(0, noise=False)
    one, again = (kfpn.trainable(built, seed=4, **SAMPLING) for _ in range(2))
    first, second = one(without), one(without)
    assert float(first["rpn_class"][0]) != float(second["rpn_class"][0])
    for name, value in again(without).items():
        np.testing.assert_allclose(value, first[name], rtol=1e-6)
    one.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    third = one(without)
    for name, value in loaded(without).items():
        np.testing.assert_allclose(value, third[name], rtol=1e-6)


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


def test_what_compile_fit_and_trainable_can_not_do_is_refused_in_one_line():
    built = detector()
    model = kfpn.trainable(built)
    with pytest.raises(ValueError, match="loss must be left out, got 'mse': a detector has losses of its own"):
        model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"unknown option sampling\.'rpn_bath'; did you mean sampling\.'rpn_batch'"):
        kfpn.trainable(built, rpn_bath=3)
    with pytest.raises(ValueError, match=r"detector must be a model of kfpn\.build_detector or kfpn\.load_detector"):
        kfpn.trainable(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    for wrong in (lambda: kfpn.trainable(model), lambda: kfpn.predict(model, np.zeros((9, 9, 3), np.uint8))):
        with pytest.raises(
            ValueError, match=r"detector must be a model of kfpn\..*trainable_.*: give its attribute `detector`"
        ):
            wrong()
    with pytest.raises(ValueError, match=r"workdir must be .*, got a TrainableDetector: kfpn\.save_detector"):
        kfpn.evaluate(model)
    for compiled in (False, True):
        if compiled:
            built.compile("adam")
        with pytest.raises(ValueError, match=r"fit must be called on kfpn\.trainable\(detector\), got faster_rcnn_fpn"):
            built.fit(batch())


@pytest.mark.parametrize(
    ("settings", "sampling", "message"),
    [
        ({"norm": "sync_bn"}, {}, "model.norm must be bn, gn or frozen_bn with KERAS_BACKEND=jax, got 'sync_bn'"),
        (
            {"mask": True},
            {"mask_targets": "polygons"},
            "sampling.mask_targets must be 'grid' with KERAS_BACKEND=jax, got 'polygons'",
        ),
    ],
)
def test_what_only_tensorflow_can_do_is_refused_on_other_backends(settings, sampling, message, monkeypatch):
    built = detector(**settings)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        kfpn.trainable(built, **sampling)


def test_a_run_and_a_backend_that_can_not_train_are_refused_by_name(monkeypatch):
    built = detector()
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(
        ValueError,
        match=r"^KERAS_BACKEND must be tensorflow or jax for kfpn train and kfpn\.train, got 'torch': set it",
    ):
        kfpn.train(Config())
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(
        ValueError, match=r"^KERAS_BACKEND must be tensorflow, jax, torch to train, got 'openvino': it can only"
    ):
        kfpn.trainable(built)


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
    with dtype_policy("mixed_float16"):
        built = detector()
    model = kfpn.trainable(built, **SAMPLING)
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    losses = model.train_on_batch(batch(0), return_dict=True)
    assert all(np.isfinite(value) for value in losses.values())


def test_a_model_that_was_saved_on_pytorch_is_compiled_on_every_backend():
    model = kfpn.trainable(detector(), **SAMPLING)
    model.compile(keras.optimizers.SGD(0.03, momentum=0.7))
    config = model.get_compile_config()
    config["optimizer"]["module"] = "keras.src.backend.torch.optimizers.torch_sgd"
    model.compile_from_config(config)
    assert type(model.optimizer) is keras.optimizers.SGD
    assert (float(model.optimizer.learning_rate), model.optimizer.momentum) == (pytest.approx(0.03), 0.7)


def test_an_image_that_can_not_be_read_is_named_in_one_line(tmp_path):
    built = detector(num_classes=2)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=64)
    records, path = made_up.source(0, 2), tmp_path / "a.png"
    keras.utils.save_img(path, records[0].image, scale=False)
    of_file = dataclasses.replace(records[0], image=str(path), name=str(path))
    batches = kfpn.dataset(kfpn.IterableSource([of_file, records[1]], ("green", "red")), built, 2)
    path.write_bytes(b"no image")
    model = kfpn.trainable(built, **SAMPLING)
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}.*image") as caught:
        model.fit(batches, verbose=0)
    assert "\n" not in str(caught.value)


def test_frozen_layers_with_random_weights_are_warned_of_and_a_detector_that_is_all_frozen_is_refused():
    built = detector(norm="frozen_bn", freeze_stages=2)
    model = kfpn.trainable(built, **SAMPLING)
    model.compile("sgd", run_eagerly=True)
    text = r"25 layers of the backbone are frozen and have random weights, stem_conv and others: load trained weights"
    with pytest.warns(UserWarning, match=text):
        model.fit(batch(0), batch_size=2, verbose=0)
    tiny.shake(built)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*frozen")
        model.fit(batch(0), batch_size=2, verbose=0)
    built.trainable = False
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(
        ValueError, match=r"^detector must have layers that train, got faster_rcnn_fpn, whose layers are all frozen"
    ):
        model.fit(batch(0), batch_size=2, verbose=0)


@pytest.mark.parametrize("name", ["y", "sample_weight", "class_weight"])
def test_what_the_losses_would_never_see_is_refused(name):
    model, one = kfpn.trainable(detector(), **SAMPLING), batch(0)
    model.compile("sgd", run_eagerly=True)
    value, message = {0: 2.0} if name == "class_weight" else np.zeros(2), f"^{name} must be left out, got a "
    with pytest.raises(ValueError, match=message):
        model.fit(one, **{name: value}, batch_size=2, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(one, **{name: value})
    if name != "class_weight":
        with pytest.raises(ValueError, match=message):
            model.fit(one, validation_data=(one, *((None, value) if name == "sample_weight" else (value,))))
        with pytest.raises(ValueError, match=message):
            model.compute_loss(one, **{name: value}, y_pred=None)


def test_what_is_wrong_with_the_validation_is_said_before_the_training():
    built = detector(class_names=("green", "red"), num_classes=2)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=64)
    train, callbacks = kfpn.dataset(made_up.source(0, 2), built, 2), kfpn.callbacks
    turned = kfpn.Config(model=built.model_config, input=built.input_config)
    val = kfpn.dataset(made_up.source(0, 2, ("red", "green")), turned, 2, train=False)
    model = kfpn.trainable(built, **SAMPLING)
    model.compile("sgd", run_eagerly=True)
    measured = callbacks.CocoAP(made_up.source(0, 2))
    for options, message in [
        ({"validation_data": val}, "batches must have the classes of the detector (green, red), got red, green"),
        ({"validation_data": "my_folder"}, "validation_data must be batches, got 'my_folder': kfpn.dataset(SOURCE"),
        ({"callbacks": [callbacks.WorkDirectory("none"), measured]}, "WorkDirectory must stand behind CocoAP"),
        ({"callbacks": [keras.callbacks.EarlyStopping("val_AP50"), measured]}, "EarlyStopping must stand behind"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            model.fit(train, verbose=0, **options)
    with pytest.raises(ValueError, match=r"^x must be batches, got a IterableSource: "):
        model.fit(made_up.source(0, 2), verbose=0)
    assert int(model.optimizer.iterations) == 0
