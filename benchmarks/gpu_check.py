"""Answers what only a machine with a GPU can answer about kfpn: one command, one table to send.

    python benchmarks/gpu_check.py                 # half an hour on a GPU; writes gpu_check.json and gpu_check.txt
    python benchmarks/gpu_check.py --quick         # small sizes, to try the program itself, on a CPU as well
    python benchmarks/gpu_check.py --only tf32 nms # some questions

Each question runs in a process of its own, so that one that fails or runs out of memory leaves the others alone. Please send both
files. Nothing in them names you, your files or your network.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from gpu_check_ops import OP_QUESTIONS
from gpu_check_training import TRAINING_QUESTIONS

QUESTIONS = {**OP_QUESTIONS, **TRAINING_QUESTIONS}
"""Name -> function (quick) -> rows (what, number, unit, how to read it); a number may be text or None."""
MARK = "gpu_check rows: "


def machine():
    """Returns what TensorFlow says of this machine, as (what, value) pairs."""
    import keras
    import tensorflow as tf

    facts = tf.sysconfig.get_build_info()
    rows = [
        ("TensorFlow", tf.__version__),
        ("Keras", keras.__version__),
        ("CUDA of the build", facts.get("cuda_version")),
    ]
    rows += [("cuDNN of the build", facts.get("cudnn_version")), ("CPU cores", os.cpu_count())]
    for device in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        capability = ".".join(map(str, details.get("compute_capability", ())))
        rows.append(
            (device.name.removeprefix("/physical_device:"), f"{details.get('device_name')}, capability {capability}")
        )
    return rows


def ask(name, quick, seconds):
    """Runs one question in a process of its own; returns its rows, or one row that says how it failed."""
    command = [sys.executable, str(Path(__file__).resolve()), "--ask", name, *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [[name, None, "", f"FAILED: took more than {seconds} s"]]
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    last = next(iter(done.stderr.strip().splitlines()[-1:]), "no message")
    return [[name, None, "", f"FAILED with code {done.returncode}: {last[:300]}"]]


def table(facts, answers):
    """Returns the text to send.

    Args:
        facts: of `machine`.
        answers: name of a question -> its rows.
    """
    lines = [f"{what}: {value}" for what, value in facts]
    for name, rows in answers.items():
        lines += ["", f"== {name}"]
        for what, number, unit, reading in rows:
            shown = "-" if number is None else f"{number:.4g}" if isinstance(number, float) else str(number)
            lines += [f"{what}: {shown} {unit}".rstrip(), f"    {reading}"]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to try the program; its numbers mean nothing"
    )
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--output", default="gpu_check", help="name of the two files, without .json and .txt")
    parser.add_argument("--seconds", type=int, default=900, help="longest time of a question")
    parser.add_argument("--ask", choices=list(QUESTIONS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(MARK + json.dumps(QUESTIONS[options.ask](options.quick)))
        return
    facts = [*machine(), ("quick", options.quick)]
    answers, start = {}, time.perf_counter()
    for name in options.only or QUESTIONS:
        print(f"{name} ... ", end="", flush=True)
        answers[name] = ask(name, options.quick, options.seconds)
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
        # Both files are written after each question: what was answered is kept if the machine goes away.
        text = table(facts, answers)
        Path(f"{options.output}.json").write_text(
            json.dumps({"machine": facts, "answers": answers}, indent=1), encoding="utf-8"
        )
        Path(f"{options.output}.txt").write_text(text, encoding="utf-8")
    print(text)
    print(f"please send {options.output}.txt and {options.output}.json")


if __name__ == "__main__":
    main()
