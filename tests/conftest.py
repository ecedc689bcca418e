"""Sets up TensorFlow for the tests, and finds the real data that is kept beside the repository."""

import ctypes
import gc
import os
import random
from pathlib import Path

# This must run before TensorFlow is imported anywhere. With pytest-xdist each worker has its own TensorFlow, so it gets few threads.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tolerances of the tests are those of a CPU
# The tolerances are those of float32, on each processor: without this, runs of the tests would take bfloat16 where it is fast.
os.environ.setdefault("KFPN_FAST_BFLOAT16", "0")
# What XLA compiles runs a few times here: to compile it well takes far longer. Processes that tests start inherit this.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import numpy as np
import pytest
from hypothesis import settings

# The made-up examples are the same at each run, so what passes here passes in CI.
# `pytest --hypothesis-profile default` tries others each time.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Python's garbage collector looks at all objects again and again, and the packages have a million that live on: a seventh of
# the seconds of imports were its own, and a part of each test's. Those objects are left alone once all is imported.
gc.disable()


def pytest_collection_finish():
    """Lets the garbage collector begin, behind what has been imported so far."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Gives memory back behind each file: models and graphs are circles of objects, and a worker runs hundreds of files."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        if hasattr(LIBC, "malloc_trim"):
            LIBC.malloc_trim(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Gives each test the same random weights at each run, in whatever order the tests are run.

    A hook and not a fixture, because weights are made in fixtures of modules too, and those come before a test's own. Keras
    draws the seeds of its initializers from Python's generator. `keras.utils.set_random_seed` would also make TensorFlow
    forget all functions that it has optimized, so that each test would spend seconds on that again.
    """
    random.seed(0)
    np.random.seed(0)


LIBC = ctypes.CDLL(None) if os.name == "posix" else None
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared():
    """Returns the path of a file or folder of real data kept beside the repository, or skips the test."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}, which is not beside this checkout")
        return path

    return find
