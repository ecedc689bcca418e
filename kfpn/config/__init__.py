"""The settings of a run and of its network: frozen dataclasses that are checked when they are made."""
