"""Computes the losses of a trainable detector: what Keras must not see as layers of its own, and what is checked first."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from kfpn.config.input_config import InputConfig
from kfpn.config.model import default_class_names
from kfpn.config.run import Config, SamplingConfig
from kfpn.data.sample_arrays import named_cause
from kfpn.losses import find_loss
from kfpn.modeling.detector import inference_model
from kfpn.training.exact_masks import run_functions
from kfpn.weights.detector_parts import input_rule_of, settings_of

BACKENDS = ("tensorflow", "jax", "torch")
"""The backends of Keras that train."""


class TrainedNetwork:
    """Holds what Keras must not see as layers of the trainable model: the submodels, and what is computed with them.

    Args:
        submodels: of the detector.
        config: with the settings of the detector and of its samplers.
    """

    def __init__(self, submodels: Any, config: Config):
        self.submodels = submodels
        self.config = config
        self._losses, self.noise_shapes = run_functions(config)
        self._padded: keras.Model | None = None

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The names of the losses, in the order in which the network computes them."""
        return ("rpn_class", "rpn_box", *(name for head in self.config.model.heads for name in find_loss(head).NAMES))

    def losses(self, batch: dict[str, Any], noise: dict[str, Any], training: bool) -> dict[str, Any]:
        """Computes the losses of each image, see `kfpn.losses.training_losses.training_losses`."""
        losses = self._losses(self.submodels, self.config, batch, noise, training=training)
        return {name: ops.cast(losses[name], "float32") for name in self.loss_names}

    def padded_detector(self, detector: keras.Model) -> keras.Model:
        """Returns the detector with the second input `image_sizes`, over the same weights; it is made at the first call."""
        if self._padded is None:
            self._padded = inference_model(self.submodels, self.config.model, padded=True)
            self._padded.class_names, self._padded.category_ids = detector.class_names, detector.category_ids
        return self._padded


def config_of(detector: keras.Model, sampling: SamplingConfig) -> Config:
    """Returns the configuration of a trainable detector, after the checks that backend and settings go together."""
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise ValueError(f"KERAS_BACKEND must be {', '.join(BACKENDS)} to train, got {backend!r}: it can only predict")
    model = settings_of(detector)
    rule = InputConfig() if getattr(detector, "input_config", None) is None else input_rule_of(detector)
    config = Config(model=model, sampling=sampling, input=rule)
    if config.masks_on_host and backend != "tensorflow":
        raise ValueError(
            f"sampling.mask_targets must be 'grid' with KERAS_BACKEND={backend}, got {sampling.mask_targets!r}: the host makes these "
            "targets in the middle of a step, which is written for TensorFlow alone"
        )
    if config.model.norm == "sync_bn" and backend != "tensorflow":
        raise ValueError(
            f"model.norm must be bn, gn or frozen_bn with KERAS_BACKEND={backend}, got 'sync_bn': Keras has it on TensorFlow alone"
        )
    return config


def take_labels(detector: keras.Model, names: Sequence[str] | None) -> None:
    """Gives a detector whose classes were never named the names of the data, and checks that others have the names of the data.

    Args:
        detector: of `kfpn.build_detector` or `kfpn.load_detector`.
        names: of the labels of the data; None: they are not known.

    Raises:
        ValueError: if the names differ, or are not as many.
    """
    own = tuple(detector.class_names)
    if names is None or tuple(names) == own:
        return
    if own != default_class_names(len(own)) or len(names) != len(own):
        raise ValueError(
            f"batches must have the classes of the detector ({', '.join(own)}), got {', '.join(names)}: make them by "
            "kfpn.dataset(SOURCE, detector), or build the detector with the class_names of the data"
        )
    detector.class_names = tuple(names)


def of_any_backend(config: Any) -> Any:
    """Returns how a model was compiled, by classes that every backend has: on PyTorch files name optimizers that it has alone.

    Args:
        config: of the file, nested.
    """
    if not isinstance(config, Mapping):
        return config
    config = {name: of_any_backend(value) for name, value in config.items()}
    module = config.get("module")
    is_own = isinstance(module, str) and module.startswith("keras.src.backend.") and ".optimizers" in module
    return config | {"module": "keras.optimizers", "registered_name": None} if is_own else config


@contextmanager
def named_data_errors() -> Iterator[None]:
    """Raises an error of one line where TensorFlow can't make a batch in a `with` block: its own is pages of tracebacks.

    Raises:
        ValueError: naming the image and what is wrong with it.
    """
    try:
        yield
    except Exception as error:
        cause = named_cause(error) if type(error).__module__.startswith("tensorflow") else None
        if cause is None:
            raise
        raise ValueError(cause) from error


def real_images(batch: Any, losses: Mapping[str, Any]) -> Any:
    """Returns (B,) float32, 1 for images that count and 0 for those that only fill up a batch."""
    if isinstance(batch, Mapping) and "record_index" in batch:
        return ops.cast(ops.convert_to_tensor(batch["record_index"]) >= 0, "float32")
    return ops.ones_like(next(iter(losses.values())))
