"""Runs a Python script in which kfpn and Keras can't be imported, as on a machine that only serves models.

python -I bare.py SCRIPT ARGUMENT...
"""

import importlib.abc
import importlib.machinery
import runpy
import sys
from pathlib import Path

FORBIDDEN = ("kfpn", "keras", "tf_keras")


class Forbid(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    # `find_spec` succeeds, and the import itself fails: TensorFlow looks for Keras's spec when it is imported, and an error
    # there would end TensorFlow's import.
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.partition(".")[0] in FORBIDDEN else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"{spec.name} must not be imported here", name=spec.name)

    def exec_module(self, module):
        pass


if __name__ == "__main__":
    sys.meta_path.insert(0, Forbid())
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # the option -I leaves the script's folder out
    runpy.run_path(sys.argv[0], run_name="__main__")
