"""Puts the sections of a report into one page, with its style and its script: nothing is loaded from anywhere."""

from collections.abc import Sequence
from pathlib import Path

from kfpn.report.html_parts import text_of
from kfpn.runs.atomic_files import begin_of

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser may load: nothing from a network, even if a text of others got past the escaping."""

PROGRAM = "kfpn: "
"""Begins the title of each report."""
_HEAD = 4096  # bytes: the title stands within them
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; background: #f5f7f9; margin: 0 }
main { max-width: 1240px; margin: 0 auto; padding: 0 20px 60px }
h1 { font-size: 26px; margin: 24px 0 4px } h2 { font-size: 20px; margin: 0 0 8px } h3 { font-size: 15px; margin: 12px 0 4px }
section { background: #fff; border: 1px solid #dde2e8; border-radius: 8px; padding: 18px 22px; margin: 16px 0; scroll-margin-top: 60px }
p { margin: 6px 0; max-width: 900px } .note { color: #5b6774; font-size: 13px }
nav { position: sticky; top: 0; background: #fff; border-bottom: 1px solid #dde2e8; padding: 8px 20px; z-index: 1; display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center }
nav a { color: #3b6ea8; text-decoration: none; font-size: 13px } nav label { margin-left: auto; font-size: 13px }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 6px 0 }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #eef1f5; white-space: nowrap } th { color: #5b6774; font-weight: 600 }
th:first-child, td:first-child { text-align: left } td.left { text-align: left; white-space: normal }
tr.on td { background: #fff4d6 } .wide { overflow-x: auto }
.beside { display: flex; flex-wrap: wrap; gap: 8px 28px } .tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 12px 0 }
.tile { background: #fff; border: 1px solid #dde2e8; border-radius: 8px; padding: 8px 16px } .tile b { display: block; font-size: 24px }
svg { max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #3a4653 }
polyline.pr { stroke-opacity: .55 } polyline.pr.off { stroke-opacity: .08 } polyline.pr.on { stroke-opacity: 1; stroke-width: 4 }
figure { margin: 14px 0; border-top: 1px solid #eef1f5; padding-top: 12px; display: flex; flex-wrap: wrap; gap: 6px 20px; align-items: flex-start }
figure img { max-width: 100% } figcaption { flex: 1 1 250px; font-size: 13px } figcaption ul { margin: 4px 0; padding-left: 18px }
.kind { color: #fff; border-radius: 4px; padding: 1px 7px; font-size: 12px } .better { color: #1a7f37 } .worse { color: #c0392b }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px } summary { cursor: pointer; color: #3b6ea8; margin: 6px 0 }
.menus { display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 13px; margin: 8px 0 } [hidden] { display: none }
td.cell { text-align: center; min-width: 34px; padding: 3px 6px }
"""

SCRIPT = """
const of = id => document.getElementById(id), all = query => [...document.querySelectorAll(query)];
function show() {
  const chosen = of('class').value, kind = of('kind') ? of('kind').value : '';
  let shown = 0;
  for (const figure of all('figure.image')) {
    const has = (name, value) => value === '' || figure.dataset[name].split(' ').includes(value);
    figure.hidden = !(has('classes', chosen) && has('kinds', kind));
    shown += !figure.hidden;
  }
  if (of('shown')) of('shown').textContent = shown + ' of ' + all('figure.image').length + ' images';
  for (const part of all('[data-class]')) {
    part.classList.toggle('on', chosen !== '' && part.dataset.class === chosen);
    part.classList.toggle('off', chosen !== '' && part.dataset.class !== chosen);
  }
}
function sort() {
  const by = of('order').value, figures = all('figure.image');
  figures.sort((a, b) => by === 'kind' && a.dataset.kind !== b.dataset.kind ? a.dataset.kind - b.dataset.kind : a.dataset.rank - b.dataset.rank);
  for (const figure of figures) figure.parentNode.appendChild(figure);
}
for (const id of ['class', 'kind']) if (of(id)) of(id).addEventListener('change', show);
if (of('order')) { of('order').addEventListener('change', sort); sort(); }
show();
"""


def whole_page(title: str, anchors: Sequence[tuple[str, str]], menu: str, sections: Sequence[str]) -> str:
    """Returns a page.

    Args:
        title: text, behind the program's name.
        anchors: (anchor, name) of the sections that the list at the top has.
        menu: HTML, the choice of a class.
        sections: HTML.
    """
    links = "".join(f'<a href="#{anchor}">{text_of(name)}</a>' for anchor, name in anchors)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{PROGRAM}{text_of(title)}</title><style>{STYLE}</style></head><body>"
        f"<nav>{links}{menu}</nav><main>{''.join(sections)}</main><script>{SCRIPT}</script></body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # the name of a file need not be UTF-8


def require_own_report(path: Path) -> None:
    """Refuses to replace a file that is no report, such as a page of the user's.

    Raises:
        ValueError: naming the file.
        OSError: if it can't be read.
    """
    begin = begin_of(path, _HEAD)
    if begin and f"<title>{PROGRAM}".encode() not in begin:
        raise ValueError(
            f"output must be a new file or an earlier report, got {path}, which `kfpn report` did not write: name another"
        )
