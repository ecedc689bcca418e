"""Hooks of MkDocs: they make the site of what stands in the repository once (README, CHANGELOG, docstrings, notebooks, source files), and keep it local.

MkDocs calls the functions by their names, in the order in which they stand here.
"""

import ast
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file by its path

from error_entries import with_entries
from notebook_pages import notebooks, page_of, shown_notebook
from pages import CODE_SPAN, FENCE, LINK, ROOT, is_address, links_of

import kfpn

COPIED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root -> where they stand in the site."""
SOURCES = "source"
"""The folder of the site for files of the repository that pages link to."""
NO_SEARCH = "---\nsearch:\n  exclude: true\n---\n\n"
NAMES = re.compile(r"^::: kfpn\.(\w+)$", re.MULTILINE)
LOADED = re.compile(
    r"<(?:script|img|iframe|video|audio|source|embed)\b[^>]*\ssrc=[\"']?(?:https?:)?//|"
    r"<link\b(?=[^>]*rel=[\"']?(?:stylesheet|icon|preload|preconnect|manifest))[^>]*\shref=[\"']?(?:https?:)?//|"
    r"@import\s+[\"']?(?:url\()?[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//"
)
"""What makes a browser load something from another place."""


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the root folder, those of the notebooks, and a page for each file of the repository that a page links to."""
    for name, place in COPIED.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    for notebook in notebooks():
        text, belonging = shown_notebook(notebook)
        files.append(File.generated(config, page_of(notebook), content=text))
        for place, content in belonging.items():
            files.append(File.generated(config, place, content=content))
    linked: set[Path] = set()
    for page in list(files.documentation_pages()):
        folder = original_of(page.src_uri).parent
        linked |= {source for _, target in links_of(page.content_string) if (source := source_of(folder, target))}
    for source in sorted(linked):
        files.append(File.generated(config, source_page(source), content=shown_source(source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns the page with links that hold in the site, headings for errors, and the modules of public names."""
    if page.file.src_uri.startswith(f"{SOURCES}/"):
        return markdown
    if page.file.src_uri == "bad_input.md":
        markdown = with_entries(markdown)
    return with_site_links(NAMES.sub(directive, markdown), page.file.src_uri)


def on_post_build(config: Any, **_: Any) -> None:
    """Checks that no page and no style loads anything from a network.

    Raises:
        PluginError: if one does; it names the file and what is loaded.
    """
    for path in sorted(Path(config.site_dir).rglob("*")):
        if (
            path.is_file()
            and path.suffix in (".html", ".css")
            and (match := LOADED.search(path.read_text(encoding="utf-8")))
        ):
            raise PluginError(f"{path}: must load nothing from a network, got {match[0]}: keep it in docs/")


def original_of(src_uri: str) -> Path:
    """Returns the file of the repository that a page of the site is made of."""
    originals = {place: ROOT / name for name, place in COPIED.items()} | {page_of(path): path for path in notebooks()}
    return originals.get(src_uri, ROOT / "docs" / src_uri)


def source_of(folder: Path, target: str) -> Path | None:
    """Returns the file or folder of the repository that a link leads to, if the site has no page for it otherwise."""
    path = target.partition("#")[0]
    if is_address(target) or not path:
        return None
    place = (folder / path).resolve()
    if not place.exists() or not place.is_relative_to(ROOT):
        return None  # MkDocs says that the link is broken
    inside = place.relative_to(ROOT).as_posix()
    of_the_site = (
        inside in COPIED or place in notebooks() or (inside.startswith("docs/") and not inside.startswith("docs/site/"))
    )
    return None if of_the_site else place


def source_page(source: Path) -> str:
    """Returns the page of the site that shows a file or a folder of the repository."""
    return f"{SOURCES}/{source.relative_to(ROOT).as_posix()}.md"


def shown_source(source: Path) -> str:
    """Returns the page of a file: its text; of a folder: its files, with the first sentence of each."""
    name = source.relative_to(ROOT).as_posix()
    if source.is_dir():
        rows = [f"| `{path.name}` | {first_sentence(path)} |" for path in sorted(source.iterdir()) if path.suffix]
        return f"{NO_SEARCH}# {name}/\n\n" + "\n".join(["| file | what it does |", "|---|---|", *rows]) + "\n"
    language = {".py": "python", ".html": "html", ".toml": "toml", ".c": "c"}.get(source.suffix, "text")
    text = source.read_text(encoding="utf-8")
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{NO_SEARCH}# {name}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def first_sentence(path: Path) -> str:
    """Returns the first line of a module's docstring; "" for another file."""
    if path.suffix != ".py":
        return ""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].replace("|", r"\|")


def directive(match: re.Match) -> str:
    """Returns what mkdocstrings shows a public name by: its module, under the name that people import.

    Raises:
        PluginError: if kfpn has no such public name.
    """
    name = match[1]
    if name not in kfpn._PLACES:
        raise PluginError(f"a page of the reference must show public names of kfpn, got kfpn.{name}")
    return f"::: {kfpn._PLACES[name]}.{name}\n    options:\n      heading: kfpn.{name}\n      toc_label: {name}"


def with_site_links(markdown: str, src_uri: str) -> str:
    """Returns a page whose links out of docs lead to pages of the site."""
    folder, here = original_of(src_uri).parent, posixpath.dirname(src_uri)

    def moved(link: re.Match) -> str:
        path, mark, anchor = link[1].partition("#")
        if is_address(link[1]) or not path:
            return link[0]
        place = (folder / path).resolve()
        if not place.is_relative_to(ROOT):
            return link[0]
        inside = place.relative_to(ROOT).as_posix()
        if place in notebooks():
            target = page_of(place)
        elif source := source_of(folder, link[1]):
            target = source_page(source)
        else:
            target = COPIED.get(inside, inside.removeprefix("docs/"))
        return link[0].replace(link[1], posixpath.relpath(target, here or ".") + mark + anchor, 1)

    lines, fence = [], None
    for line in markdown.splitlines():
        mark = FENCE.match(line)
        if mark and (fence is None or (mark[2].startswith(fence) and not mark[3])):
            fence = mark[2] if fence is None else None
        elif fence is None:
            line = outside_of_code(line, lambda text: LINK.sub(moved, text))
        lines.append(line)
    return "\n".join(lines) + "\n"


def outside_of_code(line: str, change: Any) -> str:
    """Returns a line whose code spans stay as they are; a link around a code span changes as a whole."""
    spans: list[str] = []

    def keep(span: re.Match) -> str:
        spans.append(span[0])
        return f"\0{len(spans) - 1}\0"

    return re.sub(r"\0(\d+)\0", lambda mark: spans[int(mark[1])], change(CODE_SPAN.sub(keep, line)))
