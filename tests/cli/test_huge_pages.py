"""Tests when the program starts again with large pages of memory, and that it is the same command then."""

import json
import subprocess
import sys

import pytest

from kfpn.cli.huge_pages import wanted_tunables

MADVISE = "always [madvise] never\n"
ON = "glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("given", "libc", "mode", "wanted"),
    [
        (None, "glibc 2.36", MADVISE, ON),
        ("", "glibc 2.35", MADVISE, ON),
        ("glibc.malloc.check=3", "glibc 3.0", MADVISE, f"glibc.malloc.check=3:{ON}"),
        (ON, "glibc 2.36", MADVISE, None),  # so it starts again once
        ("glibc.malloc.hugetlb=0", "glibc 2.36", MADVISE, None),
        (None, "glibc 2.34", MADVISE, None),
        (None, "", MADVISE, None),
        (None, "glibc", MADVISE, None),
        (None, "glibc 2.36", "[always] madvise never\n", None),
        (None, "glibc 2.36", "always madvise [never]\n", None),
        (None, "glibc 2.36", "", None),
    ],
)
def test_large_pages_are_asked_for_where_they_must_be_and_nobody_has_decided(given, libc, mode, wanted):
    environ = {} if given is None else {"GLIBC_TUNABLES": given}
    assert wanted_tunables(environ, libc, mode) == wanted


PROGRAM = """
import json, os, sys
from kfpn.cli import huge_pages
huge_pages._libc, huge_pages._kernel_mode = lambda: "glibc 2.36", lambda: "[madvise]"
huge_pages.restart_with_huge_pages()
print(json.dumps([os.getpid(), sys.argv[1:], sys.flags.dev_mode, os.environ["GLIBC_TUNABLES"], sys.stdin.read()]))
"""


def test_the_command_after_it_has_the_same_words_flags_input_and_number():
    words = ["-", "--data", "a b\nc", ""]
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", PROGRAM, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    answer, _ = process.communicate("a picture")
    assert json.loads(answer) == [process.pid, words, True, ON, "a picture"]
