"""Writes a SavedModel for TensorFlow Serving: `python export/to_saved_model.py runs/shapes served/shapes --verify`.

The same as `kfpn export saved_model`. It prints the differences from the Keras model (with --verify), the new version's
folder (served/shapes/1, then 2, and so on), its size and its signatures. `--help` lists every option.
"""

import sys

from kfpn.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", "saved_model", *sys.argv[1:]]))
