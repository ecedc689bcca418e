"""VOC folders whose annotations lie in folders below, and <filename> without its ending."""

import shutil

import pytest

from kfpn.data.formats.voc import VocSource
from tests.data.formats.test_voc_of_tools import images, named, voc


def test_annotations_in_folders_below_are_read_without_lists(tmp_path):
    voc(tmp_path, {"s1/a": named("a.jpg"), "s2/b": named("b.jpg")}, images=("s1/a.jpg", "s2/b.jpg"))
    shutil.rmtree(tmp_path / "ImageSets")
    assert images(VocSource(tmp_path)) == ["s1/a.jpg", "s2/b.jpg"]


def test_a_filename_without_ending_is_never_another_annotations_image(tmp_path):
    voc(tmp_path, {"a": named("b"), "b": named("b")}, images=("a.jpg", "b.jpg"))
    with pytest.raises(
        ValueError, match=r"got 'b', and both are there: .*a\.jpg and .*b\.jpg: correct <filename>, or rename one"
    ):
        VocSource(tmp_path)
