"""Defines the settings of a run and of its network: frozen dataclasses that are checked when they are made."""

from kfpn.config.model import ModelConfig
from kfpn.config.optimizer_config import OptimizerConfig
from kfpn.config.presets import PRESETS, preset
from kfpn.config.run import Config, InputConfig, SamplingConfig, from_dict, to_dict

__all__ = [
    "PRESETS",
    "Config",
    "InputConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SamplingConfig",
    "from_dict",
    "preset",
    "to_dict",
]
