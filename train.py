"""Trains a detector: `python train.py --strategy mirrored` is `kfpn train --strategy mirrored`.

Without other options it trains on the built-in shapes. It prints the devices, a progress bar with loss, images/s and time
left, and after each evaluation COCO's figures; everything is kept in runs/shapes. `python train.py --help` lists
every option, `--data coco:...` or `--data voc:...` trains on your own images.
"""

import sys

from kfpn.cli import program

if __name__ == "__main__":
    sys.exit(program(["train", *sys.argv[1:]]))
