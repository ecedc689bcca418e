"""Settings of a wrong type, as Python callers and edited config.json files have them: one line that names the option."""

import copy

import numpy as np
import pytest

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, InputConfig, from_dict, to_dict


def places(settings, above=()):
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from places(value, (*above, name))
        else:
            yield (*above, name)


def fault_of(place, value):
    """Returns the message about a value, None where it is taken."""
    settings = copy.deepcopy(to_dict(Config()))
    section = settings if len(place) == 1 else settings[place[0]]
    section[place[-1]] = value
    try:
        from_dict(Config, settings)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "value", [[], {}, [1, "a"], True, float("nan"), -1, 10**400, 1.5, None, "x"], ids=[*"abcdefghij"]
)
def test_a_value_of_any_type_is_taken_or_refused_in_one_line(value):
    faults = {place: fault_of(place, value) for place in places(to_dict(Config()))}
    assert all(fault is None or (place[-1] in fault and "\n" not in fault) for place, fault in faults.items())


@pytest.mark.parametrize("value", ["false", "x", 0, [], None])
def test_text_is_no_truth_value(value):
    with pytest.raises(ValueError, match=r"^input\.keep_empty must be True or False, got "):
        InputConfig(keep_empty=value)
    with pytest.raises(ValueError, match=r"^model\.mask must be True or False, got "):
        ModelConfig(mask=value)


def test_a_number_is_no_text_and_none_that_json_lacks():
    assert InputConfig(flip=np.float64(0.25)).flip == 0.25
    for value in ("0.1", np.float32(0.5), [0.1]):
        with pytest.raises(ValueError, match=r"^val_share must be a number, got "):
            Config(val_share=value)
