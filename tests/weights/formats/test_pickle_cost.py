import collections
import pickle
import subprocess
import sys

import numpy as np
import pytest

from kfpn.weights.formats.pickle_cost import require_bounded_hashing
from kfpn.weights.formats.safe_values import Refused
from kfpn.weights.formats.unpickle import read_pickle

# What follows is written by hand, because Python itself could not write it: it would hash the keys. A tuple in slot 0 of the
# memo is doubled 60 times.
DOUBLED = b")q\x000" + b"h\x00h\x00\x86q\x000" * 60 + b"h\x00"


def end(body):
    return b"\x80\x02" + body + b"."


@pytest.mark.parametrize(
    "body",
    [
        b"}" + DOUBLED + b"K\x01s",
        b"}(" + DOUBLED + b"K\x01u",
        b"(" + DOUBLED + b"K\x01d",
        b"\x8f(" + DOUBLED + b"\x90",
        b"(" + DOUBLED + b"\x91",
        b"cbuiltins\nset\n](" + DOUBLED + b"e\x85R",
        b"ccollections\nOrderedDict\n]](" + DOUBLED + b"K\x01ea\x85R",
        b"cbuiltins\nfrozenset\n](" + DOUBLED + b"e\x85\x81",
        b"}" + b"(" + b"K\x01" * 20000 + b"tq\x00" + b"h\x00K\x01s" * 20000,
        b"}" + b")" + b"\x85" * 100_000 + b"K\x01s",
    ],
    ids=["SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET", "set", "OrderedDict", "NEWOBJ", "often", "deep"],
)
def test_keys_that_take_for_ever_or_too_much_stack_are_refused_before_they_are_hashed(body):
    with pytest.raises(Refused, match=r"would take for ever|nests tuples deeper"):
        require_bounded_hashing(end(body))


def test_a_file_of_such_keys_is_refused_at_once(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(end(b"}" + DOUBLED + b"K\x01s"))
    code = f"from pathlib import Path; from kfpn.weights.formats.unpickle import read_pickle; read_pickle(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "would take for ever" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_as_people_have_them_are_read_as_before(tmp_path, protocol):
    big = tuple(float(number) for number in range(3000))
    value = {
        "model": collections.OrderedDict([("weight", np.arange(6, dtype=np.float32).reshape(2, 3)), ("bias", np.float32(2))]),
        "shapes": [(1, 2), (1, 2)], "names": {"a", "b"}, "frozen": frozenset({(1, 2), (3, 4)}), "big": [big] * 3, 7: b"", "n": None,
    }  # fmt: skip
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    got = read_pickle(path)
    np.testing.assert_array_equal(got["model"]["weight"], value["model"]["weight"])
    assert got["big"] == value["big"]
    assert sorted(got["frozen"]) == [(1, 2), (3, 4)]
    assert sorted(got["names"]) == ["a", "b"]


@pytest.mark.parametrize("body", [b"s", b"h\x05", b"(K\x01s", b"u", b"\x86"])
def test_operations_on_nothing_are_refused(body):
    with pytest.raises(Refused, match="is not a sound pickle"):
        require_bounded_hashing(end(body))
