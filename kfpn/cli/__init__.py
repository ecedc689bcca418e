"""Offers the command line: what it takes, what it does, and how its errors look."""

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code, see `kfpn.cli.command_line.main`."""
    from kfpn.cli import command_line

    return command_line.main(args)


def program(args: Sequence[str] | None = None) -> int:
    """Runs the command line as a program of its own: as `main`, but the process may be replaced by one with large pages of memory.

    For the console script, `python -m kfpn` and train.py alone: what a process did before is lost.
    """
    from kfpn.cli.huge_pages import restart_with_huge_pages

    restart_with_huge_pages()
    return main(args)
