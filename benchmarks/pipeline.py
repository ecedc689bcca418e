"""Measures how many images/s the input pipeline alone makes, at the sizes of a preset, by the number of cores.

    python benchmarks/pipeline.py --data coco:train.json,images             # the sizes of the preset coco: short side 800
    python benchmarks/pipeline.py --data my_folder --preset shapes --cores 1 2 4 8

Each number of cores is measured in a process of its own, which is kept on so many cores; they take turns. A batch is what `kfpn train`
takes: read, decoded, resized, mirrored, padded. Where the milliseconds of an image a core grow as cores are added, cores wait for each
other.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from kfpn.config.presets import PRESETS

WARM_UP = 16
"""Images before the first that counts: more than are made ahead."""


def images_per_second(options: argparse.Namespace) -> tuple[float, float, str]:
    """Returns the images/s of the training batches, the milliseconds of CPU an image takes, and a line about the data."""
    from scaling_data import describe_data

    from kfpn.config.presets import preset
    from kfpn.data.formats import open_source
    from kfpn.data.pipeline import named_errors, train_batches

    source, base = open_source(options.data, "train"), preset(options.preset)
    model = dataclasses.replace(base.model, num_classes=len(source.class_names))
    config = dataclasses.replace(base, batch_size=options.batch, model=model)
    batches = named_errors(train_batches(source, config))
    for _ in range(0, WARM_UP, options.batch):
        next(batches)
    count, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < options.seconds:
        next(batches)
        count += options.batch
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return count / seconds, 1e3 * cpu / count, f"short side {config.input.short_side}; {describe_data(source)}"


def race(options: argparse.Namespace) -> None:
    """Measures each number of cores in turns, and prints the medians."""
    cores = sorted(os.sched_getaffinity(0))
    if max(options.cores) > len(cores) or min(options.cores) < 1:
        raise SystemExit(f"cores must be in 1..{len(cores)} on this machine, got {options.cores}")
    rates: dict[int, list[float]] = {count: [] for count in options.cores}
    cpu: dict[int, list[float]] = {count: [] for count in options.cores}
    said = ""
    for _ in range(options.turns):
        for count in options.cores:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", *map(str, cores[:count])]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rate, milliseconds, said = json.loads(output.splitlines()[-1])
            rates[count].append(rate)
            cpu[count].append(milliseconds)
    print(
        f"{options.preset}, {said}\n\n| cores | images/s | an image a core, ms | CPU an image, ms |\n|---|---|---|---|"
    )
    for count in options.cores:
        rate = median(rates[count])
        print(f"| {count} | {rate:.1f} | {1e3 * count / rate:.1f} | {median(cpu[count]):.1f} |")


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as kfpn train takes it")
    parser.add_argument("--preset", choices=list(PRESETS), default="coco")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, len(os.sched_getaffinity(0))}))
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        os.sched_setaffinity(0, options.child)
        print(json.dumps(images_per_second(options)))
        return
    race(options)


if __name__ == "__main__":
    main()
