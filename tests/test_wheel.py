"""Checks a wheel that was built: what is in it, and how large it is."""

import os
import zipfile
from pathlib import Path

import pytest

BUILT = "KFPN_WHEEL"
"""Variable of the environment: the wheel; .ci/run builds it."""
LARGEST = 2_000_000
"""Bytes of all files of a wheel but the weights, compressed as in it."""
WEIGHTS = "kfpn/weights/shipped/"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def files():
    """Returns name -> compressed bytes of each file of the wheel."""
    if BUILT not in os.environ:
        pytest.skip(f"needs a wheel: python -m build --wheel && {BUILT}=dist/kfpn-....whl pytest tests/test_wheel.py")
    with zipfile.ZipFile(os.environ[BUILT]) as wheel:
        return {entry.filename: entry.compress_size for entry in wheel.infolist()}


def test_a_wheel_is_small_apart_from_the_weights_that_it_ships(files):
    assert [name for name in files if name.startswith(WEIGHTS)] == [f"{WEIGHTS}small.npz"]
    assert sum(size for name, size in files.items() if not name.startswith(WEIGHTS)) < LARGEST


def test_a_wheel_has_every_module_and_what_type_checkers_read(files):
    own = {
        path.relative_to(ROOT).as_posix()
        for ending in ("*.py", "*.pyi", "py.typed")
        for path in (ROOT / "kfpn").rglob(ending)
    }
    assert "kfpn/py.typed" in own
    assert own - set(files) == set()


def test_a_wheel_has_nothing_but_kfpn(files):
    assert {name.split("/")[0].split("-")[0] for name in files} == {"kfpn"}
