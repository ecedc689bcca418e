"""Offers the command line: what it takes, what it does, and how its errors look."""

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code, see `kfpn.cli.command_line.main`."""
    from kfpn.cli import command_line

    return command_line.main(args)
