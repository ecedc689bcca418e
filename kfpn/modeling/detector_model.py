"""Defines the model that a detector is: a functional model whose file also holds class names and the rule of resizing."""

import dataclasses
from typing import Any

import keras

from kfpn.config.model import ModelConfig
from kfpn.config.run import InputConfig, from_dict, to_dict

FACTS = ("class_names", "category_ids", "thresholds")
"""Attributes that travel with the file, tuples with one entry a label; `input_config` and `model_config` travel as well."""


@keras.saving.register_keras_serializable("kfpn")
class DetectorModel(keras.Model):
    """A functional model that keeps what its outputs and inputs mean, in memory and in a `.keras` file.

    The mean and the deviation of the pixels are in its first layer, and so in the file too.

    Attributes:
        class_names: tuple of str, the name of each label.
        category_ids: tuple of int, the data set's own id of each label.
        thresholds: tuple of float, the best score threshold of each label; only models with measured thresholds have it.
        input_config: InputConfig, the rule by which images are resized; detectors with fresh weights have none.
        model_config: ModelConfig, by which the model was built; files of 0.1.0 have none.
        pasting: str, the rule by which masks are put into their image, see `kfpn.paste_masks`; only models with masks have it.
    """

    def fit(self, *arguments: Any, **options: Any) -> Any:
        """Trains with a loss of your own; the losses of a detector are those of the model that `kfpn.trainable` makes of it.

        Raises:
            ValueError: if `compile` was given no loss.
        """
        if not self.compiled or self.loss is None:
            raise ValueError(
                f"fit must be called on kfpn.trainable(detector), got {self.name}, which detects and has no losses: see docs/keras.md"
            )
        return super().fit(*arguments, **options)

    def predict(self, x: Any, *arguments: Any, **options: Any) -> Any:
        """Detects as `keras.Model.predict` does, in images in the size that they have.

        Raises:
            ValueError: for one image without an axis of images.
        """
        shape = tuple(getattr(x, "shape", ()))
        if len(shape) == 3:
            raise ValueError(
                f"images must be (B, H, W, 3), got {shape}: write image[None], or kfpn.predict(detector, image), which resizes as in training"
            )
        return super().predict(x, *arguments, **options)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration of the functional model and `kfpn`: the attributes that are there."""
        facts: dict[str, Any] = {name: list(getattr(self, name)) for name in FACTS if hasattr(self, name)}
        if hasattr(self, "input_config"):
            facts["input_config"] = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(self.input_config).items()
            }
        if hasattr(self, "model_config"):
            facts["model_config"] = to_dict(self.model_config)
        if hasattr(self, "pasting"):
            facts["pasting"] = self.pasting
        return {**super().get_config(), "kfpn": facts}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "DetectorModel":
        """Builds the model of a configuration, with its attributes."""
        config = dict(config)
        facts = config.pop("kfpn", {})
        model = super().from_config(config, custom_objects=custom_objects)
        for name in FACTS:
            if name in facts:
                setattr(model, name, tuple(facts[name]))
        if "input_config" in facts:
            model.input_config = from_dict(InputConfig, facts["input_config"])
        if "model_config" in facts:
            model.model_config = from_dict(ModelConfig, facts["model_config"])
        if "pasting" in facts:
            model.pasting = facts["pasting"]
        return model
