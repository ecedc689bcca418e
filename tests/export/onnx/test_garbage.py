import gc
import weakref

import pytest

from kfpn.export.onnx.garbage import garbage_collected_often


class Link:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self):
        self.itself = self


def test_old_garbage_goes_within_the_block_though_there_are_many_more_objects():
    many = [[] for _ in range(500_000)]
    with garbage_collected_often():
        link = Link()
        alive = weakref.ref(link)
        gc.collect(1)  # now it is among the old objects
        del link
        newer = [[] for _ in range(50_000)]
        assert alive() is None
    assert len(many) == 10 * len(newer)


def test_the_settings_of_the_collector_are_as_before_even_after_an_error():
    thresholds = gc.get_threshold()
    with pytest.raises(KeyError), garbage_collected_often():
        raise KeyError
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() == 0
    assert gc.isenabled()


def test_what_was_garbage_in_the_block_is_gone_behind_it():
    thresholds = gc.get_threshold()
    with garbage_collected_often():
        assert gc.get_threshold() != thresholds
        alive = weakref.ref(Link())
    assert alive() is None
