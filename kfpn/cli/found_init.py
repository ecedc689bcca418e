"""Replaces `--init auto` on the command line by the checkpoint that was found, or by nothing."""

import os
from collections.abc import Sequence

from kfpn.data.formats import run_name


def option_value(args: Sequence[str], name: str) -> str | None:
    """Returns the value of `--name VALUE` or `--name=VALUE`; the last one counts, as in the parser."""
    value = None
    for index, word in enumerate(args):
        if word == f"--{name}" and index + 1 < len(args):
            value = args[index + 1]
        elif word.startswith(f"--{name}="):
            value = word.partition("=")[2]
    return value


def asks_for_masks(args: Sequence[str]) -> bool:
    """Tells whether the line turns masks on; the last of its words counts, as in the parser."""
    return _turned_on(args, ("--mask", "--model.mask"), ("--no-mask", "--model.no-mask"))


def _turned_on(args: Sequence[str], words: Sequence[str], opposite: Sequence[str]) -> bool:
    asked = False
    for word in args:
        if word in (*words, *opposite):
            asked = word in words
    return asked


def with_found_init(args: list[str]) -> list[str]:
    """Returns the words of `kfpn train` with the checkpoint that was found in the place of `--init auto`.

    The network's settings come with a checkpoint, so it has to be found before the words are parsed.

    Args:
        args: the command line. Words of other commands, without `--init auto` or with `--help` stay as they are.
    """
    if args[:1] != ["train"] or option_value(args, "init") != "auto" or {"--help", "-h"} & set(args):
        return args
    from kfpn.weights.auto_init import auto_init

    data = option_value(args, "data")
    workdir = option_value(args, "workdir") or (f"runs/{run_name(data)}" if data else "runs/finetune")
    worker, several = 0, False
    if option_value(args, "strategy") == "multi_worker":
        worker, several = _this_worker()
    backbone = option_value(args, "model.backbone") or "resnet50"
    cascade = _turned_on(args, ("--model.cascade",), ("--model.no-cascade",))
    weights = auto_init(backbone, workdir, worker, several, asks_for_masks(args), cascade)
    return _without_option(args, "init") + ([] if weights is None else ["--init", weights])


def _this_worker() -> tuple[int, bool]:
    """Returns the number of this process in a multi_worker run, and whether there are others."""
    if os.environ.get("KERAS_BACKEND") == "jax":
        from kfpn.training.distribution.tf_config import workers_of_tf_config

        if (told := workers_of_tf_config()) is None:
            raise ValueError(
                "init must be a file with strategy multi_worker and KERAS_BACKEND=jax where TF_CONFIG does not name the workers, got "
                "'auto': name a file, or all workers in TF_CONFIG, because JAX finds them only after the weights are chosen"
            )
        return told[1], len(told[0]) > 1
    from kfpn.training.distribution.cluster_resolver import resolve_cluster

    resolver = resolve_cluster()
    return int(resolver.task_id or 0), resolver.cluster_spec().num_tasks("worker") > 1


def _without_option(args: Sequence[str], name: str) -> list[str]:
    left, words = [], iter(args)
    for word in words:
        if word == f"--{name}":
            next(words, None)
        elif not word.startswith(f"--{name}="):
            left.append(word)
    return left
