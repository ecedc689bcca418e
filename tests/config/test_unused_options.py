"""Tests that options which a run has no use for are named: those of segments without segments, and those of detectors with them."""

import dataclasses

import pytest

import kfpn
from kfpn.cli import command_line as cli
from kfpn.config.presets import preset
from kfpn.config.unused_options import OF_DETECTORS, OF_MASKS, OF_SEGMENTS, require_used

DETECTOR = preset("shapes")
SEGMENTER = dataclasses.replace(DETECTOR, model=dataclasses.replace(DETECTOR.model, task="segments"))


def test_all_of_them_are_options():
    for name in (*OF_MASKS, *OF_SEGMENTS, *OF_DETECTORS):
        section, field = name.split(".")
        assert hasattr(getattr(DETECTOR, section), field), name


def test_each_run_takes_its_own_options_and_those_that_a_preset_has():
    require_used(OF_SEGMENTS, SEGMENTER)
    require_used(["model.pasting", "model.anchor_sizes", "steps"], SEGMENTER)
    require_used([name for name in OF_DETECTORS if name not in OF_MASKS], DETECTOR)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--task segments --model.max-detections 5",
            "model.max_detections must be left out with --task segments, got --model.max-detections 5: it is for detectors",
        ),
        ("--task segments --model.no-shared-rpn", "model.shared_rpn must be left out with --task segments, got"),
        ("--task segments --sampling.mask-batch 4", "sampling.mask_batch must be left out with --task segments, got"),
        (
            "--model.segment-side 28",
            "model.segment_side must be given with --task segments, got --model.segment-side 28 without it: add --task segments",
        ),
        ("--mask --sampling.segment-batch 64", "sampling.segment_batch must be given with --task segments, got"),
    ],
)
def test_an_option_of_the_other_task_is_refused_in_one_line(tmp_path, capsys, words, said):
    assert cli.main(["train", "--workdir", str(tmp_path / "run"), *words.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kfpn: error: {said}")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_is_chosen_for_segments_has_nothing_of_detectors():
    config = kfpn.auto_config("shapes,validation[:4]", given={"model.task": "segments"})
    assert (config.model.task, config.init, config.optimizer.learning_rate) == ("segments", "kfpn:small", 0.2)
    assert all(
        config.model.anchor_sizes[i + 1] == pytest.approx(2 * config.model.anchor_sizes[i], rel=0.01) for i in range(4)
    )
