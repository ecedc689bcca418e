"""Takes the options of `kfpn data --augmented` from a run or a preset."""

import re
from collections.abc import Callable, Sequence

import tyro

from kfpn.cli.options import LookAtData
from kfpn.config.run import Config

_OF_TRAINING = re.compile(r"--((no-)?input\.|(workdir|preset|augment|seed|batch-size)(=|$))")


def sheet_defaults(
    args: Sequence[str],
    value_of: Callable[[Sequence[str], str], str | None],
    train_defaults: Callable[[Sequence[str]], Config],
) -> LookAtData:
    """Returns the options that `kfpn data` starts from: those of the run or of the preset that the command line names.

    Args:
        args: the command line.
        value_of: gives the value of an option of it, by the option's name.
        train_defaults: gives what `kfpn train` starts from with a command line.

    Raises:
        ValueError: for options of training without --augmented, or a work directory that can't be read.
    """
    words = list(args) if args[:1] == ["data"] else []
    if not words or "--help" in words or "-h" in words:
        return _with_options_of(train_defaults(["train"]))
    of_training = [word for word in words if _OF_TRAINING.match(word)]
    if of_training and "--augmented" not in words:
        raise ValueError(f"augmented must be on for options of training, got {of_training[0]} alone: add --augmented")
    workdir, name = value_of(words, "workdir"), value_of(words, "preset")
    if workdir and name:
        raise ValueError(f"preset must be left out with workdir, got {name}: the run has its options")
    if not workdir:
        return _with_options_of(train_defaults(["train", *(["--preset", name] if name else [])]))
    # TensorFlow is not needed for the plain sheet, and this room imports it.
    from kfpn.runs.workdir import Workdir

    return _with_options_of(Workdir(workdir).read_config())


def _with_options_of(config: Config) -> LookAtData:
    fields = {name: getattr(config, name) for name in ("augment", "seed", "batch_size", "input")}
    return LookAtData(data=tyro.MISSING, **fields)
