"""Builds the docs site, or takes one that was built, and checks what is in it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kfpn
from docs.site.error_entries import messages_of, shown_text
from docs.site.pages import ROOT

BUILT = "KFPN_SITE"
"""Variable of the environment: a folder that `mkdocs build --strict` has written, so that it is not built twice."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if BUILT in os.environ:
        return Path(os.environ[BUILT])
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'needs {package}: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def found_by_search(site):
    """Returns address -> words of each section that the search knows."""
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    return {entry["location"]: shown_text(f"{entry['title']} {entry['text']}") for entry in index["docs"]}


def test_the_search_finds_every_message_of_bad_input_in_an_entry_of_its_own(found_by_search):
    entries = [words for place, words in found_by_search.items() if place.startswith("bad_input/#")]
    messages = messages_of((ROOT / "docs" / "bad_input.md").read_text(encoding="utf-8"))
    lost = [message for message in messages if not any(" ".join(message.split()) in words for words in entries)]
    assert lost == []
    assert len(entries) > 250


def test_the_reference_shows_every_public_name(site):
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").rglob("index.html"))
    places = {f"{kfpn._PLACES[name]}.{name}" for name in set(kfpn.__all__) - {"__version__", *kfpn._MODULES}}
    for module in (getattr(kfpn, name) for name in kfpn._MODULES):
        places |= {f"{getattr(module, name).__module__}.{name}" for name in module.__all__}
    assert {place for place in places if f'id="{place}"' not in pages} == set()


def test_the_site_has_the_pages_of_the_root_and_the_files_that_pages_link_to(site):
    for page in (
        "index.html",
        "changelog/index.html",
        "contributing/index.html",
        "source/kfpn/modeling/detector.py/index.html",
    ):
        assert (site / page).is_file(), page
    home = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="source/kfpn/modeling/detector.py/"' in home
    assert 'src="images/shapes.jpg"' in home


def test_source_files_are_not_among_what_the_search_finds(found_by_search):
    assert [place for place in found_by_search if place.startswith("source/")] == []
