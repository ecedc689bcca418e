"""Opens pages in a headless Chromium, where there is one: its menus work and it complains of nothing."""

import html
import re
import subprocess

import pytest

from kfpn.report.gather import ReportRequest, gather_run
from kfpn.report.write_report import report_page
from tests.browser import browser_path
from tests.report.made_runs import WRONG, write_data, write_detections, write_run

PROBE = """<script>
const shownFigures = () => all('figure.image').filter(figure => !figure.hidden).map(figure => figure.dataset.kinds).join(',');
const choose = (menu, value) => { of(menu).value = value; of(menu).dispatchEvent(new Event('change')); return shownFigures(); };
const said = [shownFigures(), choose('order', 'rank'), choose('class', '1'), all('tr.on').length, all('polyline.on').length,
  choose('kind', 'class'), of('shown').textContent, choose('class', ''), choose('kind', '')];
const note = document.createElement('pre'); note.id = 'said'; note.textContent = said.join('|'); document.body.appendChild(note);
</script></body>"""


@pytest.fixture
def opened(tmp_path):
    """Returns a function that opens a page and returns the document after its scripts, and what the browser printed."""
    browser = browser_path()

    def call(page):
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
                   "--virtual-time-budget=3000", "--dump-dom", path.as_uri()]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, done.stderr

    return call


def test_the_menus_choose_and_order_images_and_nothing_is_complained_of(opened, tmp_path):
    data = write_data(tmp_path / "data")
    run = write_run(tmp_path / "run", data)
    gathered = gather_run(ReportRequest(run, detections=write_detections(tmp_path / "found.json", *WRONG)))
    document, printed = opened(report_page(gathered).replace("</body>", PROBE))
    assert "CONSOLE" not in printed
    (said,) = re.findall(r'<pre id="said">(.*?)</pre>', document)
    assert html.unescape(said).split("|") == [
        "missed,background,class", "missed,background,class", "background,class", "1", "2", "class", "1 of 3 images", "class",
        "missed,background,class",
    ]  # fmt: skip
