from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.config.presets import preset
from kfpn.losses.training_losses import noise_shapes
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.optimizer import Optimizer
from kfpn.training.sampler_noise import noise_of, sampler_noise, with_noise
from kfpn.training.step import build_train_step
from tests.training import standin

SHAPES = {"rpn": (5,), "roi": (3,)}


def test_noise_of_an_image_does_not_depend_on_its_batch():
    together = sampler_noise(3, tf.constant([6, 7, 2**40], tf.int64), SHAPES)
    alone = sampler_noise(3, tf.constant([2**40], tf.int64), SHAPES)
    assert together["rpn"].shape == (3, 5)
    for name in SHAPES:
        np.testing.assert_array_equal(together[name][2:], alone[name])


def test_noise_differs_between_images_samplers_and_seeds_and_lies_in_0_to_1():
    shapes = {"rpn": (1000,), "roi": (1000,)}
    noise = sampler_noise(3, tf.constant([0, 1], tf.int64), shapes)
    other = sampler_noise(4, tf.constant([0, 1], tf.int64), shapes)
    rows = np.stack([noise["rpn"][0], noise["rpn"][1], noise["roi"][0], other["rpn"][0]])
    assert rows.min() >= 0.0
    assert rows.max() < 1.0
    # The rows are independent and uniform, so their correlations are about 1 / sqrt(1000).
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 0.2


def test_losses_are_means_over_the_global_batch_and_loss_is_their_sum():
    config = standin.config(steps=1)
    parts = standin.submodels()
    batch = {name: tf.constant(value) for name, value in standin.batch(0, 4).items()}
    noise = sampler_noise(config.seed, batch["sample_index"], standin.noise_shapes(config, 8, 8, 3))
    expected = {k: float(np.mean(v)) for k, v in standin.losses(parts, config, batch, noise).items()}
    _, rows = standin.run(config, make_strategy("one_device"))
    assert {name: rows[0][name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert rows[0]["loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
    assert set(rows[0]) == {*expected, "loss", "grad_norm", "lr", "skipped"}


def test_steps_compiled_by_xla_equal_plain_steps():
    strategy = make_strategy("one_device")
    plain, _ = standin.run(standin.config(steps=3), strategy)
    compiled, _ = standin.run(standin.config(steps=3, jit_compile=True), strategy)
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_step_updates_the_statistics_of_batch_norms():
    state, _ = standin.run(standin.config(steps=1), make_strategy("one_device"))
    moving_mean = state[4]
    assert moving_mean.shape == (4,)
    assert np.abs(moving_mean).min() > 0.0


def test_a_loss_scale_does_not_change_the_step():
    strategy = make_strategy("one_device")
    plain, _ = standin.run(standin.config(steps=3), strategy)
    scaled, _ = standin.run(standin.config(steps=3, precision="mixed_float16"), strategy)
    for a, b in zip(plain, scaled, strict=False):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_variable_that_no_loss_depends_on_is_named():
    config, strategy = standin.config(), make_strategy("one_device")
    idle = keras.layers.Dense(1, name="idle")
    idle.build((None, 2))
    parts = standin.submodels()
    variables = [*parts.weights_model.trainable_variables, *idle.trainable_variables]
    optimizer = Optimizer(config, variables)
    widened = SimpleNamespace(weights_model=SimpleNamespace(trainable_variables=variables, non_trainable_variables=[]))

    def losses(_, *rest):
        return standin.losses(parts, *rest)

    step = build_train_step(widened, config, optimizer, strategy, losses, standin.noise_shapes)
    with pytest.raises(ValueError, match="every trainable variable must act on a loss, got none from idle/kernel"):
        step({name: tf.constant(value) for name, value in standin.batch(0, 4).items()})


def test_noise_that_comes_with_the_batch_is_that_which_the_step_would_draw():
    config = standin.config()
    plain = {name: tf.constant(value) for name, value in standin.batch(3, 4).items()}
    (batch,) = with_noise(tf.data.Dataset.from_tensors(plain), config, standin.noise_shapes)
    assert batch["noise_rpn"].shape == (4, 64)
    rest, noise = noise_of(batch, config, standin.noise_shapes)
    assert set(rest) == set(plain)
    drawn = noise_of(plain, config, standin.noise_shapes)[1]
    for name in ("rpn", "roi"):
        np.testing.assert_array_equal(noise[name], drawn[name])


@pytest.mark.parametrize("padding", ["zero", "foreign"])
def test_the_noise_of_the_detectors_samplers_can_be_drawn_for_canvases_that_are_not_known_before(padding):
    config = replace(preset("coco"), batch_size=2, model=replace(preset("coco").model, padding=padding))
    sizes = tf.data.Dataset.from_tensor_slices(np.array([[96, 64], [75, 100]]))
    batches = sizes.map(
        lambda size: {
            "images": tf.zeros((2, size[0], size[1], 3), tf.uint8),
            "gt_boxes": tf.zeros((2, 5, 4)),
            "sample_index": tf.constant([7, 8], tf.int64),
        }
    )
    for batch in with_noise(batches, config, noise_shapes):
        without = {name: value for name, value in batch.items() if not name.startswith("noise_")}
        expected = noise_of(without, config, noise_shapes)[1]
        assert set(expected) == {"rpn", "roi"}
        for name, value in expected.items():
            np.testing.assert_array_equal(batch[f"noise_{name}"], value)
