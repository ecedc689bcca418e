"""Reads what the labels of a trained detector are called."""

from kfpn.config.run import Config
from kfpn.runs.workdir import Workdir


def labels_of(workdir: Workdir, config: Config) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns the class names and the category ids of a work directory.

    Raises:
        ValueError: if they are not as many as the classes of its network: names would stand beside the wrong objects.
    """
    names, ids = workdir.read_classes()
    if not len(names) == len(ids) == config.model.num_classes:
        raise ValueError(
            f"{workdir.classes} must have {config.model.num_classes} class_names and category_ids, as {workdir.config.name} says, got "
            f"{len(names)} and {len(ids)}"
        )
    return names, ids
