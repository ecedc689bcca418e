"""Times training steps and inferences of the detector in all its forms, and of torchvision's, in turns.

    python benchmarks/speed_race.py                             # R50-FPN, 512 x 512
    python benchmarks/speed_race.py --what training --rounds 9
    python benchmarks/speed_race.py --torchvision .tv/bin/python     # a Python that has torch and torchvision: they run beside

Each contender runs in a process of its own, which builds and compiles and then waits; while it waits it computes nothing. Then each
takes a run in turn, so that a machine whose speed changes is the same for all. The table has medians, the best run, and peak memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FORMS = ("whole float32", "islands float32", "islands mixed_bfloat16")
TORCHVISION = ("torchvision float32", "torchvision bfloat16")
SIZE = 512
OBJECTS = 20


def training_runner(form, mask):
    """Returns a function that takes one training step of 2 images, as `kfpn train` takes them."""
    import dataclasses

    import keras
    import speed
    import tensorflow as tf

    from kfpn.losses.training_losses import noise_shapes
    from kfpn.training.optimizer import Optimizer
    from kfpn.training.step import build_train_step

    compiled, precision = form.split()
    keras.config.set_dtype_policy(precision)
    config, submodels, batch, noise = speed.build((SIZE, SIZE), 2, mask)
    config = dataclasses.replace(config, compile=compiled, precision=precision)
    optimizer = Optimizer(config, submodels.weights_model.trainable_variables)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0" if not tf.config.list_physical_devices("GPU") else "GPU:0")
    step = build_train_step(submodels, config, optimizer, strategy, noise_shapes=noise_shapes)
    batch = {**batch, **{f"noise_{name}": value for name, value in noise.items()}}
    return lambda: float(step(batch)["loss"])


def inference_runner(form, mask):
    """Returns a function that detects in one image, as a run in that precision is used."""
    import keras
    import speed
    import tensorflow as tf

    from kfpn.kernels.live_form import live_form
    from kfpn.modeling.detector import inference_model

    compiled, precision = form.split()
    keras.config.set_dtype_policy(precision)
    config, submodels, batch, _ = speed.build((SIZE, SIZE), 1, mask)
    nms = "rounds"
    if compiled == "islands":
        submodels, nms = live_form(submodels, config.model), "kernel"
    model = inference_model(submodels, config.model, nms=nms)
    images = tf.cast(batch["images"], tf.float32)
    detect = tf.function(lambda images: model(images, training=False), jit_compile=compiled == "whole")
    return lambda: detect(images)["boxes"].numpy()


def torchvision_runner(what, precision, mask):
    """Returns a function that takes a step or detects with torchvision's detector, channels last, on two threads."""
    import torch
    from torchvision.models import detection

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    build = detection.maskrcnn_resnet50_fpn if mask else detection.fasterrcnn_resnet50_fpn
    model = build(
        weights=None, weights_backbone=None, num_classes=81, min_size=SIZE, max_size=SIZE, trainable_backbone_layers=3
    ).to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    start = torch.rand(2, OBJECTS, 2) * 0.6
    boxes = torch.cat([start, start + 0.05 + 0.35 * torch.rand(2, OBJECTS, 2)], -1) * SIZE
    targets = [{"boxes": boxes[i], "labels": torch.randint(1, 81, (OBJECTS,))} for i in range(2)]
    if mask:
        for target in targets:
            target["masks"] = torch.randint(0, 2, (OBJECTS, SIZE, SIZE), dtype=torch.uint8)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-4, momentum=0.9)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    model.train(what == "training")

    def step():
        with autocast:
            loss = sum(model(list(images), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def detect():
        with torch.inference_mode(), autocast:
            model([images[0]])

    return step if what == "training" else detect


def serve(what, name, mask):
    """Answers the lines of stdin: `run` with the seconds of one run, `end` with the peak memory in GB."""
    form, precision = name.split()
    if form == "torchvision":
        run = torchvision_runner(what, precision, mask)
    else:
        run = (training_runner if what == "training" else inference_runner)(name, mask)
    begun = time.perf_counter()
    run()
    print(time.perf_counter() - begun, flush=True)
    run()
    for line in sys.stdin:
        if line.strip() == "end":
            break
        begun = time.perf_counter()
        run()
        print(time.perf_counter() - begun, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, flush=True)


class Contender:
    """A process that runs on demand."""

    def __init__(self, what, name, options):
        python = options.torchvision if name.startswith("torchvision") else sys.executable
        command = [python, __file__, "--serve", what, name, *(["--mask"] if options.mask else [])]
        # Without PYTHONPATH a foreign Python finds its own packages.
        places = {"PYTHONPATH": ""} if name.startswith("torchvision") else {}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **places}
        )
        self.first = self._answer()
        self.seconds = []

    def run(self):
        """Takes a run, and keeps its seconds."""
        self._say("run")
        self.seconds.append(self._answer())

    def end(self):
        """Ends the process, and returns its peak memory in GB."""
        self._say("end")
        return self._answer()

    def _say(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _answer(self):
        for line in self.process.stdout:
            try:
                return float(line)
            except ValueError:
                continue  # what a library prints
        raise SystemExit(f"{self.name} has ended without an answer: see its error above")


def race(what, names, options):
    """Prints the table of one kind of run, and returns its rows: name -> figures."""
    contenders = [Contender(what, name, options) for name in names]
    for _ in range(options.rounds):
        for contender in contenders:
            contender.run()
    rows = {}
    for contender in contenders:
        values = contender.seconds
        rows[contender.name] = {
            "median": median(values), "best": min(values), "first": contender.first, "GB": contender.end(),
        }  # fmt: skip
    print(f"\n{what}{' with masks' if options.mask else ''}, {SIZE} x {SIZE}, medians of {options.rounds} rounds")
    for name, row in rows.items():
        print(
            f"  {name:24} {row['median']:6.3f} s (best {row['best']:6.3f}), first run {row['first']:5.1f} s, {row['GB']:.2f} GB",
            flush=True,
        )
    return rows


def main():
    """Runs the races."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["training", "inference", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mask", action="store_true", help="with a mask head")
    parser.add_argument("--torchvision", metavar="PYTHON", help="an interpreter that has torch and torchvision")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--serve", nargs=2, metavar=("WHAT", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve, options.mask)
        return
    names = [*FORMS, *(TORCHVISION if options.torchvision else ())]
    kinds = ("training", "inference") if options.what == "both" else (options.what,)
    rows = {what: race(what, names, options) for what in kinds}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
