"""Runs the command line: `python -m kfpn` is `kfpn`."""

import sys

from kfpn.cli import program

if __name__ == "__main__":
    sys.exit(program())
