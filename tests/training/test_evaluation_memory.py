import json
from dataclasses import replace

import pytest

from kfpn.config.run import Config
from kfpn.evaluation import images_at_once
from kfpn.training.evaluation_memory import EvaluationMemory
from tests.training import made_up

CONFIG = Config(batch_size=16)  # 16 pictures of 800 x 800 pixels: 11.4 GB by the rule


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Returns a function that begins as a process does, on a device of some bytes."""

    def begin(config=CONFIG, left=16 * 10**9):
        monkeypatch.setattr(images_at_once, "device_memory", lambda name: left)
        return EvaluationMemory(tmp_path / "evaluation.json", config, made_up.source(0, 2), ("GPU:0",))

    return begin


def kept(tmp_path):
    return json.loads((tmp_path / "evaluation.json").read_text())


def test_an_evaluation_that_ends_leaves_no_file(tmp_path, memory):
    for error in (None, KeyboardInterrupt, ValueError):
        try:
            with memory().under_way() as at_once:
                assert at_once.images == 16
                assert kept(tmp_path) == {"eval_batch_size": None, "images": 16, "under_way": True}
                if error:
                    raise error
        except (KeyboardInterrupt, ValueError):
            pass
        assert not list(tmp_path.iterdir())


def test_what_was_halved_stays_halved_in_this_process_and_after_a_restart(tmp_path, memory, capsys):
    first = memory()
    with first.under_way() as at_once:
        at_once.halve((800, 800), MemoryError())
    assert "goes on with 8 at once" in capsys.readouterr().out
    with first.under_way() as at_once:
        assert at_once.images == 8
    assert kept(tmp_path) == {"eval_batch_size": None, "images": 8, "under_way": False}
    assert memory().at_once.images == 8
    assert memory(replace(CONFIG, eval_batch_size=12)).at_once.images == 12


def test_a_killed_evaluation_is_begun_again_with_half_as_many_images_down_to_one(tmp_path, memory, capsys):
    seen = []
    for _ in range(6):
        block = memory().under_way()
        seen.append(block.__enter__().images)  # it never ends: the process was killed
    assert seen == [16, 8, 4, 2, 1, 1]
    assert (
        "of 16 images at once, was killed, perhaps for want of memory: evaluates 8 at once" in capsys.readouterr().out
    )
    with memory().under_way():
        pass
    assert kept(tmp_path)["under_way"] is False
    assert memory().at_once.images == 1


def test_an_evaluation_that_takes_little_of_the_memory_is_not_suspected_and_writes_nothing(tmp_path, memory):
    with memory(left=10**12).under_way():
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", '{"images": 0, "under_way": true}', '{"images": "x"}', '{"images": 2}'])
def test_a_damaged_file_is_as_if_it_was_not_there(tmp_path, memory, text):
    (tmp_path / "evaluation.json").write_text(text)
    assert memory().at_once.images == 16


def test_fewer_images_than_the_training_batch_are_said_once(memory, capsys):
    one = memory(left=8 * 10**9)
    for _ in range(2):
        with one.under_way():
            pass
    assert capsys.readouterr().out == "evaluates 8 images at once; --eval-batch-size sets another number\n"
