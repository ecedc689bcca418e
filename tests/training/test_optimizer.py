import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.training.optimizer import GROWTH_STEPS, OPTIMIZERS, Optimizer, decays
from tests.training import standin


def variables():
    kernel = keras.Variable(np.array([[3.0, 4.0]]), name="kernel", dtype="float32")
    bias = keras.Variable(np.array([1.0, 2.0]), name="bias", dtype="float32")
    return [kernel, bias]


def optimizer(trainable, precision="float32", **settings):
    settings = {"clip_norm": None, "ema_decay": 0.0, "weight_decay": 0.0, "momentum": 0.9, **settings}
    return Optimizer(standin.config(precision=precision, **settings), trainable)


def gradients(kernel, bias):
    return [tf.constant([kernel], tf.float32), tf.constant(bias, tf.float32)]


def test_steps_with_momentum_are_those_computed_by_hand():
    kernel, bias = variables()
    sgd = optimizer([kernel, bias])
    sgd.apply(gradients([1.0, 0.0], [0.0, 2.0]))
    np.testing.assert_allclose(kernel.numpy(), [[3.0 - 0.1, 4.0]], rtol=1e-6)
    sgd.apply(gradients([1.0, 0.0], [0.0, 0.0]))
    # The velocity is -0.1 * 0.9 - 0.1 for the kernel, and -0.2 * 0.9 for the bias.
    np.testing.assert_allclose(kernel.numpy(), [[3.0 - 0.1 - 0.19, 4.0]], rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [1.0, 2.0 - 0.2 - 0.18], rtol=1e-6)


def test_decay_is_added_to_gradients_of_kernels_only():
    kernel, bias = variables()
    results = optimizer([kernel, bias], weight_decay=0.5).apply(gradients([0.0, 0.0], [0.0, 0.0]))
    np.testing.assert_allclose(kernel.numpy(), [[3.0 - 0.1 * 1.5, 4.0 - 0.1 * 2.0]], rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), [1.0, 2.0])
    assert float(results["grad_norm"]) == pytest.approx(2.5)


def test_norms_and_biases_do_not_decay():
    model = standin.submodels().weights_model
    assert {v.path.split("/")[-1] for v in model.trainable_variables if decays(v)} == {"kernel"}
    assert {v.path.split("/")[-1] for v in model.trainable_variables if not decays(v)} == {"bias", "gamma", "beta"}


def test_with_decay_biases_biases_decay_like_kernels_and_norms_do_not():
    model = standin.submodels().weights_model
    names = {v.path.split("/")[-1]: decays(v, biases=True) for v in model.trainable_variables}
    assert names == {"kernel": True, "bias": True, "gamma": False, "beta": False}
    kernel, bias = variables()
    results = optimizer([kernel, bias], weight_decay=0.5, decay_biases=True).apply(gradients([0.0, 0.0], [0.0, 0.0]))
    np.testing.assert_allclose(kernel.numpy(), [[3.0 - 0.1 * 1.5, 4.0 - 0.1 * 2.0]], rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [1.0 - 0.1 * 0.5, 2.0 - 0.1 * 1.0], rtol=1e-6)
    assert float(results["grad_norm"]) == pytest.approx(np.sqrt(1.5**2 + 2.0**2 + 0.5**2 + 1.0**2))


def test_clipping_scales_the_whole_gradient_and_reports_the_norm_before_it():
    kernel, bias = variables()
    results = optimizer([kernel, bias], clip_norm=0.5).apply(gradients([3.0, 0.0], [4.0, 0.0]))
    assert float(results["grad_norm"]) == pytest.approx(5.0)
    np.testing.assert_allclose(kernel.numpy(), [[3.0 - 0.1 * 0.3, 4.0]], rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [1.0 - 0.1 * 0.4, 2.0], rtol=1e-6)


def test_the_average_follows_the_weights_quickly_at_first_and_then_by_its_decay():
    kernel, bias = variables()
    sgd = optimizer([kernel, bias], ema_decay=0.25, momentum=0.0)
    sgd.apply(gradients([10.0, 0.0], [0.0, 0.0]))
    # Step 1 keeps min(.25, 2/11) of the average: 3 becomes 2 * 9/11 + 3 * 2/11. Step 2 keeps min(.25, 3/12) = .25.
    first = 2.0 * 9 / 11 + 3.0 * 2 / 11
    np.testing.assert_allclose(sgd.average[0].numpy(), [[first, 4.0]], rtol=1e-6)
    sgd.apply(gradients([10.0, 0.0], [0.0, 0.0]))
    np.testing.assert_allclose(sgd.average[0].numpy(), [[0.25 * first + 0.75 * 1.0, 4.0]], rtol=1e-6)


def test_averaged_weights_are_used_for_a_block_and_taken_out_again_even_after_an_error():
    kernel, bias = variables()
    sgd = optimizer([kernel, bias], ema_decay=0.9)
    sgd.apply(gradients([1.0, 1.0], [1.0, 1.0]))
    trained, average = kernel.numpy().copy(), sgd.average[0].numpy().copy()
    assert not np.array_equal(trained, average)

    def fail():
        with sgd.averaged_weights():
            np.testing.assert_array_equal(kernel.numpy(), average)
            raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        fail()
    np.testing.assert_array_equal(kernel.numpy(), trained)


def test_without_an_average_the_trained_weights_are_used():
    kernel, bias = variables()
    with optimizer([kernel, bias]).averaged_weights():
        np.testing.assert_array_equal(kernel.numpy(), [[3.0, 4.0]])


def test_mixed_float16_unscales_gradients_skips_infinite_ones_and_changes_the_scale():
    kernel, bias = variables()
    sgd = optimizer([kernel, bias], precision="mixed_float16")
    scale = float(sgd.loss_scale)
    sgd.apply(gradients([float("inf"), 0.0], [0.0, 0.0]))
    np.testing.assert_array_equal(kernel.numpy(), [[3.0, 4.0]])
    assert float(sgd.loss_scale) == scale / 2
    sgd.apply(gradients([scale / 2, 0.0], [0.0, 0.0]))
    np.testing.assert_allclose(kernel.numpy(), [[2.9, 4.0]], rtol=1e-6)
    sgd.scale[1].assign(GROWTH_STEPS - 1)
    sgd.apply(gradients([0.0, 0.0], [0.0, 0.0]))
    assert float(sgd.loss_scale) == scale
    assert int(sgd.rule.iterations.numpy()) == 3


def test_the_rate_follows_the_schedule_step_by_step():
    sgd = optimizer(variables(), warmup_steps=2, warmup_factor=0.0)
    rates = [float(sgd.apply(gradients([0.0, 0.0], [0.0, 0.0]))["lr"]) for _ in range(3)]
    assert rates == pytest.approx([0.0, 0.05, 0.1])


@pytest.mark.parametrize("rule", [keras.optimizers.SGD(0.1, 0.9, nesterov=True), keras.optimizers.AdamW(0.1, 0.1)])
def test_a_refused_step_of_any_optimizer_changes_nothing_and_a_taken_one_is_kerass_own(rule, monkeypatch):
    kernel, bias = variables()
    monkeypatch.setitem(OPTIMIZERS, "sgd", lambda config, schedule: type(rule).from_config(rule.get_config()))
    ours = optimizer([kernel, bias])
    theirs, own = type(rule).from_config(rule.get_config()), variables()
    for _ in range(2):
        given = gradients([1.0, -2.0], [0.5, 0.0])
        ours.apply(given)
        theirs.apply(given, own) if not theirs.weight_decay else _step(theirs, given, own)
    np.testing.assert_array_equal(kernel.numpy(), own[0].numpy())
    np.testing.assert_array_equal(bias.numpy(), own[1].numpy())
    before = [variable.numpy() for variable in [kernel, bias, *ours.rule.variables[1:]]]
    for bad in (float("nan"), float("inf")):
        assert float(ours.apply(gradients([bad, 0.0], [1.0, 1.0]))["skipped"]) == 1.0
    after = [variable.numpy() for variable in [kernel, bias, *ours.rule.variables[1:]]]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert "assign" not in vars(ours.rule)


def _step(rule, given, own):
    """Takes a step without Keras' own decay, which `update_step` leaves out."""
    if not rule.built:
        rule.build(own)
    for gradient, variable in zip(given, own, strict=True):
        rule.update_step(gradient, variable, tf.constant(0.1))
    rule.iterations.assign_add(1)


def test_adamw_moves_the_weights_as_kerass_adamw_does():
    ours, theirs = variables(), variables()
    settings = {"learning_rate": 0.01, "reference_batch": 1, "warmup_steps": 0, "schedule": "step", "milestones": ()}
    ours_rule = optimizer(ours, name="adamw", weight_decay=0.1, **settings)
    rate = float(ours_rule.rule.learning_rate)
    keras_rule = keras.optimizers.AdamW(rate, weight_decay=0.1)
    keras_rule.exclude_from_weight_decay(var_names=["bias"])
    keras_rule.build(theirs)
    for values in (([1.0, -2.0], [0.5, 2.0]), ([0.1, 3.0], [-0.5, 0.0]), ([5.0, 0.0], [1.0, 1.0])):
        step = gradients(*values)
        ours_rule.apply(step)
        keras_rule.apply(step)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-6)
    assert abs(ours[0].numpy()[0, 0] - 3.0) > 0.01
