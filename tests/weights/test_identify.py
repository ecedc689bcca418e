import numpy as np
import pytest

from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers import MAKERS
from tests.weights.foreign import write


def test_arrays_of_an_unknown_maker_are_refused_with_a_list_of_all_makers(tmp_path):
    path = write(tmp_path / "m.pkl", {"layer.weight": np.ones((2, 3), np.float32)})
    with pytest.raises(ValueError, match=r"m\.pkl: must hold weights of a known kind") as error:
        read_trained_weights(path)
    assert all(maker.networks in str(error.value) for maker in MAKERS)
    assert str(error.value).endswith("got 1 arrays with other names, such as ['layer.weight']")


def test_a_whole_keras_model_is_refused_with_the_function_that_loads_it(tmp_path):
    (tmp_path / "det.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"got a whole Keras model: load it with keras.models.load_model\('"):
        read_trained_weights(tmp_path / "det.keras")
