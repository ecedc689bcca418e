import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.modeling.backbones import stem_layers
from kfpn.modeling.submodels import build_submodels
from tests.modeling.tiny import config

SIDES = [(38, 46), (37, 45), (38, 45)]


def outputs_and_gradients(layer, inputs, gradient, **options):
    """Returns a layer's outputs, and the gradients of its inputs and weights where that of its outputs is given."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, **options)
    sources = [inputs, *(variable.value for variable in layer.trainable_variables)]
    return outputs.numpy(), [array.numpy() for array in tape.gradient(outputs, sources, gradient(outputs.shape))]


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize(
    ("ours", "usual"),
    [
        (stem_layers.Conv2D(5, 7), keras.layers.Conv2D(5, 7, strides=2)),
        (stem_layers.Conv2D(5, 3, use_bias=False), keras.layers.Conv2D(5, 3, strides=2, use_bias=False)),
        (stem_layers.MaxPooling2D(), keras.layers.MaxPooling2D(3, strides=2)),
    ],
    ids=["7x7", "3x3 without bias", "maximum"],
)
def test_in_training_outputs_and_gradients_are_those_of_the_usual_layer(ours, usual, sides):
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(2, *sides, 3)), tf.float32)

    def gradient(shape):
        return tf.constant(np.random.default_rng(1).normal(size=shape), tf.float32)

    for layer in (ours, usual):
        if not layer.built:
            layer.build(inputs.shape)
    if ours.weights:
        ours.set_weights([rng.normal(size=weight.shape) for weight in ours.weights])
        usual.set_weights(ours.get_weights())
    outputs, gradients = outputs_and_gradients(ours, inputs, gradient, training=True)
    wanted, wanted_gradients = outputs_and_gradients(usual, inputs, gradient)
    assert outputs.shape == ours.compute_output_shape(inputs.shape) == wanted.shape
    np.testing.assert_allclose(outputs, wanted, atol=2e-5)
    for got, want in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-4)
    np.testing.assert_array_equal(ours(inputs, training=False), wanted)


def test_a_graph_without_fixed_sides_takes_the_usual_layers():
    specs = [tf.TensorSpec((None, None, None, 3), tf.float32)]
    for layer in (stem_layers.Conv2D(5, 7), stem_layers.MaxPooling2D()):
        layer.build((None, None, None, 3))
        graph = tf.function(lambda x, layer=layer: layer(x, training=True)).get_concrete_function(*specs).graph
        kinds = {op.type for op in graph.get_operations()}
        assert {"Conv2D", "MaxPool"} & kinds
        assert "Transpose" not in kinds  # which cuts blocks
        assert "Maximum" not in kinds


def test_the_stem_of_a_resnet_has_these_layers_and_a_file_keeps_them(tmp_path):
    features = build_submodels(config(norm="bn", backbone_width=8, pyramid_channels=8)).features
    features.save(tmp_path / "features.keras")
    for model in (features, keras.models.load_model(tmp_path / "features.keras")):
        kinds = {type(layer) for layer in model.layers}
        assert {stem_layers.Conv2D, stem_layers.MaxPooling2D} <= kinds
