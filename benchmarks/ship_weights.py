"""Writes the weights that ship with the package, kfpn/weights/shipped/small.npz, from a run on made pictures.

    kfpn train --workdir runs/shapes          # the data set shapes, no other option: ten minutes on two cores
    python benchmarks/ship_weights.py runs/shapes

They depend on no photograph and on no other network.
"""

import argparse
from pathlib import Path

from kfpn.weights.shipped import SHIPPED, SMALL, write_shipped


def main() -> None:
    """Writes the file and says its size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=Path, help="of the run")
    file = SHIPPED[SMALL]
    write_shipped(parser.parse_args().workdir, file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
