"""Registers the layers of detectors with Keras as soon as Keras is there, so that `keras.models.load_model` finds them.

`import kfpn` stays fast: this module imports nothing. If Keras is imported later, a finder of modules sees it and registers the
layers right after it.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

TRAINABLE = "kfpn>TrainableDetector"
"""The name under which files have the model of `kfpn.trainable`."""


def register_layers() -> None:
    """Imports the modules that define, between them, all classes that `.keras` files of detectors name.

    The model of `kfpn.trainable` is imported only where a file has one: it needs much more than detectors do.
    """
    from keras.saving import get_custom_objects

    from kfpn.modeling import detector, fast_rcnn, segmenter  # noqa: F401
    from kfpn.modeling.backbones import keras_model, stem_layers  # noqa: F401
    from kfpn.modeling.heads import box, cascade, mask  # noqa: F401

    get_custom_objects().setdefault(TRAINABLE, TrainableFromFile)


class TrainableFromFile:
    """Stands in the registry of Keras for the model of `kfpn.trainable`, whose module is imported when a file has one."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the model of a configuration."""
        import kfpn

        # The name `kfpn.trainable` loads the module of the class. `runs` must not import `kfpn.training` itself.
        module = sys.modules[kfpn.trainable.__module__]
        return module.TrainableDetector.from_config(config)


class KerasFinder(importlib.abc.MetaPathFinder):
    """Finds Keras where the other finders find it, and has the layers registered after its import."""

    def __init__(self) -> None:
        self._asks_others = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of Keras with a loader that registers; None for all other modules."""
        if fullname != "keras" or self._asks_others:
            return None
        self._asks_others = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asks_others = False
        if spec is not None and spec.loader is not None:
            spec.loader = RegisteringLoader(spec.loader, self)
        return spec


class RegisteringLoader(importlib.abc.Loader):
    """Loads Keras with its own loader, then registers the layers.

    Args:
        own: the loader of Keras.
        finder: is removed when Keras is there.
    """

    def __init__(self, own: Any, finder: KerasFinder):
        self._own = own
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        """Returns what the loader of Keras has: tools ask it for files and source code."""
        return getattr(self._own, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Makes the module as the loader of Keras does."""
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Imports Keras, gives it back its own loader, and registers the layers."""
        self._own.exec_module(module)
        module.__loader__ = self._own
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        register_layers()


def install_registration() -> None:
    """Registers the layers now if Keras is there, else as soon as it is."""
    if "keras" in sys.modules:
        register_layers()
    elif not any(isinstance(finder, KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, KerasFinder())
