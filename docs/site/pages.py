"""Reads the Markdown pages of the repository: their code blocks, links and anchors. The docs site and the tests of the pages use it."""

import dataclasses
import html
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*([\w-]*)")
COMMENT = re.compile(r"^\s*<!--\s*(.*?)\s*-->\s*$")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
LINK = re.compile(r"(?<!\\)\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HTML_ANCHOR = re.compile(r"""<\w+[^>]*\s(?:id|name)=["']([^"']+)["']""")
HTML_LINK = re.compile(r"""<(?:a|img)\b[^>]*\s(?:href|src)=["']([^"']+)["']""")
CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
NOT_RUN = "not run:"


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: str, the page's path, seen from the repository.
        line: int, the line of its first fence, from 1.
        language: str, the word behind the fence; "" where there is none.
        text: str, what stands in it, without the fence's indentation.
        reason: str, why it is not run: the words of `<!-- not run: ... -->` before it. None: there is no such comment.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        """The page and the line, as an editor opens them."""
        return f"{self.page}:{self.line}"


def pages_of(root: Path = ROOT) -> list[Path]:
    """Returns the Markdown pages that people read: those in the root folder and in docs."""
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]


def blocks_of(text: str, page: str = "") -> list[Block]:
    """Returns the fenced code blocks of a page, in their order."""
    blocks: list[Block] = []
    fence: re.Match | None = None
    start, reason = 0, None
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        mark = FENCE.match(line)
        if fence is not None:
            if mark and mark[2].startswith(fence[2]) and not mark[3]:
                blocks.append(Block(page, start, fence[3], "\n".join(inside) + "\n", reason))
                fence, reason = None, None
            else:
                inside.append(line.removeprefix(fence[1]))
        elif mark:
            fence, start, inside = mark, number, []
        elif comment := COMMENT.match(line):
            reason = comment[1].removeprefix(NOT_RUN).strip() if comment[1].startswith(NOT_RUN) else reason
        elif line.strip():
            reason = None
    if fence is not None:
        raise ValueError(f"{page}:{start}: a code block must end, got none of its fence {fence[2]!r} behind it")
    return blocks


def prose_of(text: str) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, line) of the lines outside of code blocks, with code spans emptied."""
    fence = None
    for number, line in enumerate(text.splitlines(), start=1):
        mark = FENCE.match(line)
        if mark and (fence is None or (mark[2].startswith(fence) and not mark[3])):
            fence = mark[2] if fence is None else None
        elif fence is None:
            yield number, CODE_SPAN.sub(lambda span: f"{span[1]}{span[1]}", line)


def links_of(text: str) -> list[tuple[int, str]]:
    """Returns (line from 1, target) of the links and pictures of a page, without those in code."""
    return [
        (number, html.unescape(target))
        for number, line in prose_of(text)
        for pattern in (LINK, HTML_LINK)
        for target in pattern.findall(line)
    ]


def slug(heading: str) -> str:
    """Returns the anchor that GitHub gives to a heading."""
    words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    words = re.sub(r"<[^>]+>", "", unicodedata.normalize("NFC", words)).lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\- ]", "", words))


def anchors_of(text: str) -> set[str]:
    """Returns the anchors of a page: of its headings, and those written in HTML."""
    anchors: set[str] = set()
    headings = {number for number, line in prose_of(text) if HEADING.match(line)}
    for number, line in enumerate(text.splitlines(), start=1):
        if number in headings and (match := HEADING.match(line)):
            name = slug(match[2])
            count = next(n for n in range(10_000) if (f"{name}-{n}" if n else name) not in anchors)
            anchors.add(f"{name}-{count}" if count else name)
    return anchors.union(*(HTML_ANCHOR.findall(line) for _, line in prose_of(text)))


def is_address(target: str) -> bool:
    """Returns whether a link's target is an address on the web or of a mail, and no place in the repository."""
    return bool(re.match(r"[a-z][a-z+.-]*:", target)) or target.startswith("//")


def broken_links(root: Path = ROOT, pages: list[Path] | None = None) -> list[str]:
    """Returns a sentence for each link of the pages that leads to no file or no heading of the repository."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages_of(root)}
    faults = []
    for page in pages or list(texts):
        for number, target in links_of(texts[page]):
            if is_address(target):
                continue
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            where = f"{page.relative_to(root)}:{number}: {target}"
            if not place.exists():
                faults.append(f"{where}: there is no such file")
            elif not place.is_relative_to(root):
                faults.append(f"{where}: the file is outside of the repository")
            elif anchor and place in texts and anchor not in anchors_of(texts[place]):
                faults.append(f"{where}: the page has no such heading")
    return faults
