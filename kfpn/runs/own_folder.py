"""Checks that a folder is free for a run: that no other program keeps its files there under the same names."""

from kfpn.runs.workdir import Workdir


def require_own_config(workdir: Workdir, name: str) -> None:
    """Checks that a config.json that is there already is one of kfpn: many programs call a file so, and a run would replace it.

    Args:
        workdir: the folder; it may not be there yet.
        name: what the caller calls it, for the error.

    Raises:
        ValueError: naming the folder, and what is wrong with its config.json.
    """
    if not workdir.config.exists():
        return
    try:
        workdir.read_config()
    except ValueError as error:
        raise ValueError(
            f"{name} must be a folder without files of others, got {str(workdir.path)!r}, where {error}: name another folder"
        ) from error
