"""Writes files aside, and stops in between."""

import concurrent.futures
import os

import pytest

from kfpn.runs.atomic_files import write_aside


@pytest.mark.parametrize("text", ["new", "\ud800"])  # the second can't be written as UTF-8
def test_what_stops_the_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, text):
    path = tmp_path / "report.html"
    path.write_text("old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises((KeyboardInterrupt, UnicodeEncodeError)):
        write_aside(path, text)
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_two_that_write_one_file_at_once_leave_that_of_one_of_them_whole(tmp_path):
    path = tmp_path / "report.html"
    texts = {letter * 200_000 for letter in "ab"}

    def write_often(text):
        for _ in range(50):
            write_aside(path, text)

    seen = set()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        writers = [pool.submit(write_often, text) for text in texts]
        while not all(one.done() for one in writers):
            if path.exists():
                seen.add(path.read_text())
    for one in writers:
        one.result()
    assert seen | {path.read_text()} <= texts
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
