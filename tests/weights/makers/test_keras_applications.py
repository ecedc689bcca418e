import h5py
import keras
import numpy as np
import pytest

from kfpn.modeling.submodels import build_submodels
from kfpn.weights.assign import assign_weights, load_detector, model_config
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers import keras_applications as reader
from kfpn.weights.makers.foreign_arrays import ForeignArrays

SMALL = {"num_classes": 2, "pyramid_channels": 8, "head_width": 8}


@pytest.fixture(scope="module")
def network():
    """Returns Keras's own ResNet-50 with random norms and biases."""
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, include_top=False)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(("gamma", "variance")):
            # The last norm of a block is small, because sixteen blocks would otherwise add up to huge numbers.
            low, high = (0.2, 0.4) if "_3_bn/gamma" in variable.path else (0.5, 1.5)
            variable.assign(rng.uniform(low, high, variable.shape))
        elif len(variable.shape) == 1:
            variable.assign(rng.uniform(-0.3, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("applications") / "resnet50.h5"
    network.save(path)
    return path


@pytest.mark.filterwarnings("ignore:.*is a backbone")
def test_c5_is_the_one_that_keras_computes(network, file):
    trained = read_trained_weights(file)
    config = model_config(trained, **SMALL)
    assert (config.backbone, config.backbone_width, config.stride_on) == ("resnet50", 64, "1x1")
    assert config.norm_epsilon == 1.001e-5
    submodels = build_submodels(config)
    assign_weights(trained, submodels, vars(config))
    # P5 is C5 after a 1x1 and a 3x3 convolution. The 3x3 here reads only its middle cell, so P5 is a known product of C5.
    rng, variables = np.random.default_rng(1), variables_of(submodels)
    project = rng.normal(0, 0.1, (2048, 8)).astype(np.float32)
    variables["lateral_5/kernel"].assign(project[None, None])
    middle = np.zeros((3, 3, 8, 8))
    middle[1, 1] = np.eye(8)
    variables["output_5/kernel"].assign(middle)
    image = rng.integers(0, 256, (1, 75, 101, 3)).astype(np.float32)
    c5 = np.array(network(keras.applications.resnet.preprocess_input(image.copy()), training=False))
    p5, expected = np.array(submodels.features(image)["P5"]), c5 @ project
    assert c5.shape == (1, 3, 4, 2048)
    np.testing.assert_allclose(p5, expected, rtol=0, atol=1e-4 * expected.std())


def test_the_names_of_keras_2_are_read_too_and_the_classifier_is_left_out(network, file, tmp_path):
    path = tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
    with h5py.File(path, "w") as old:
        for layer in network.layers:
            for variable in layer.weights:
                old[f"{layer.name}/{layer.name}/{variable.name}:0"] = np.array(variable)
        old["predictions/predictions/kernel:0"] = np.ones((2048, 10), np.float32)
        old["predictions/predictions/bias:0"] = np.ones(10, np.float32)
    trained, expected = read_trained_weights(path), read_trained_weights(file)
    assert trained.model == expected.model
    assert len(trained.notes) == 2
    assert expected.notes == ()
    assert trained.tensors.keys() == expected.tensors.keys()
    for key, tensor in trained.tensors.items():
        np.testing.assert_array_equal(tensor.value, expected.tensors[key].value, key)


def test_a_network_that_was_saved_with_its_optimizer_is_read_too(network, tmp_path, file):
    network.compile(optimizer=keras.optimizers.SGD(momentum=0.9))
    network.optimizer.build(network.trainable_variables)
    network.save(tmp_path / "compiled.h5")
    assert len(read_trained_weights(tmp_path / "compiled.h5").tensors) == len(read_trained_weights(file).tensors)


@pytest.fixture(scope="module")
def arrays(file):
    from kfpn.weights.formats.file_formats import read_file

    return reader.short_names(read_file(file).content)


def test_a_missing_or_additional_array_is_named(arrays):
    with pytest.raises(
        ValueError, match=r"m\.h5: tensors must fit the network, got 1 missing: conv3_block2_1_bn/beta$"
    ):
        reader.read(
            ForeignArrays("m.h5", {name: value for name, value in arrays.items() if name != "conv3_block2_1_bn/beta"})
        )
    with pytest.raises(ValueError, match=r"1 left over: dense/kernel \(2, 3\)$"):
        reader.read(ForeignArrays("m.h5", arrays | {"dense/kernel": np.ones((2, 3), np.float32)}))
    with pytest.raises(ValueError, match=r"conv1_conv/bias must have the shape of conv1_bn/moving_mean"):
        reader.read(ForeignArrays("m.h5", arrays | {"conv1_conv/bias": np.ones(3, np.float32)}))
    with pytest.raises(ValueError, match=r"1 not usable: conv1_bn/gamma \(not finite\)"):
        reader.read(ForeignArrays("m.h5", arrays | {"conv1_bn/gamma": np.full(64, np.inf, np.float32)}))


def test_other_hdf5_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["dense/kernel"] = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"m\.h5: must be an HDF5 file of keras\.applications' ResNet-50, 101 or 152"):
        read_trained_weights(tmp_path / "m.h5")


def test_a_backbone_is_not_loaded_as_a_detector(file):
    with pytest.raises(ValueError, match=r"must be a detector, got keras\.applications resnet50, ImageNet"):
        load_detector(file)
