"""Runs a Python script where kfpn and Keras can't be imported, as in a program that only serves.

python -I bare.py SCRIPT ARGUMENT...
"""

import importlib.abc
import importlib.machinery
import runpy
import sys
from pathlib import Path

FORBIDDEN = ("kfpn", "keras", "tf_keras")


class Forbid(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    # It gives a spec and fails on import: TensorFlow asks for Keras' spec at its own import, and an error there would end it.
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.partition(".")[0] in FORBIDDEN else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"{spec.name} must not be imported here", name=spec.name)

    def exec_module(self, module):
        pass


if __name__ == "__main__":
    sys.meta_path.insert(0, Forbid())
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # which -I leaves out
    runpy.run_path(sys.argv[0], run_name="__main__")
