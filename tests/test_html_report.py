"""docs/report.html: current, whole in itself, escaped, and sorted by a real browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablations import catalog, html_report, shown
from ablations.__main__ import app

ROOT = Path(__file__).parents[1]
MOST_BYTES = 1_200_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "img", "br", "hr", "link", "input"}

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a browser: apt-get install chromium"
)


class Reader(HTMLParser):
    """Collects ids and addresses, the rows of the first table, and checks that tags nest."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self.sorted_by: dict[int, str] = {}
        self._open: list[str] = []
        self._tables = 0
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.addresses += [named[key] for key in ("href", "src") if key in named]
        if tag not in VOID:
            self._open.append(tag)
        self._tables += tag == "table"
        if self._tables == 1 and tag == "tr":
            self.rows.append([])
        if self._tables == 1 and tag in ("th", "td"):
            self.rows[-1].append("")
            if named.get("aria-sort", "none") != "none":
                self.sorted_by[len(self.rows[-1]) - 1] = named["aria-sort"]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._tables == 1 and self._open[-1:] != ["table"] and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def page() -> str:
    return html_report.page(ROOT)


def test_the_committed_report_is_what_the_committed_records_give(page):
    assert (ROOT / html_report.PAGE).read_text() == page, "it is stale: run `make docs`"
    assert len(page.encode()) < MOST_BYTES


def test_the_report_needs_nothing_beside_it(page):
    read = Reader(page)
    assert len(read.ids) == len(set(read.ids))
    for address in read.addresses:
        assert address.startswith("data:image/svg+xml;base64,") or address[1:] in read.ids
    assert "url(" not in page
    assert "@import" not in page


def test_every_finding_has_a_row_and_a_section_with_its_verdict(page):
    read = Reader(page)
    names = [row[0] for row in read.rows[1:]]
    assert list(dict.fromkeys(names)) == [finding.name for finding in catalog.FINDINGS]
    assert {finding.name for finding in catalog.FINDINGS} <= set(read.ids)
    verdicts = catalog.verdicts("cpu", ROOT / "results/published")
    said = {row[0]: row[2] for row in read.rows[1:] if row[1] in ("cpu", "-")}
    for finding in catalog.FINDINGS:
        verdict = verdicts.get(finding.name)
        assert said[finding.name] == (shown.sentence(verdict) if verdict else "not run")


def test_a_report_goes_where_it_is_asked_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("docs", "results/published"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text())
    done = CliRunner().invoke(app, ["report", "--html", "--to", "mine.html"])
    assert done.exit_code == 0, done.output
    read = Reader((tmp_path / "mine.html").read_text())
    assert {row[2] for row in read.rows[1:]} == {"not run"}  # there are no records here
    assert not (tmp_path / html_report.PAGE).exists()


def test_outside_a_checkout_a_report_says_where_it_can_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report"])
    assert done.exit_code == 2
    assert f"{tmp_path} is no checkout of this project" in done.output
    assert list(tmp_path.iterdir()) == []


def test_what_a_record_says_is_text_and_not_markup(monkeypatch):
    wild = {"machines": "<script>alert(1)</script>"}
    monkeypatch.setattr(html_report, "_provenance", lambda trials: wild)
    text = html_report.page(ROOT)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


# ---- in a browser --------------------------------------------------------------------------------


def browse(path: Path, folder: Path, *options: str) -> str:
    """Open a page in Chromium without a window; return what it prints."""
    command = (
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", *options, path.as_uri()),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def clicked(page: str, heading: str, times: int) -> str:
    """Return the page with a hand that clicks a heading after it has loaded."""
    hand = (
        "<script>for (const button of document.querySelectorAll('#findings th button')) "
        f"if (button.textContent === {heading!r}) "
        f"for (let i = 0; i < {times}; i++) button.click();</script>"
    )
    return page.replace("</body>", f"{hand}</body>")


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize(("times", "state"), [(1, "ascending"), (2, "descending")])
@pytest.mark.parametrize(("heading", "column"), [("here", 4), ("outcome", 2)])
def test_a_click_on_a_heading_sorts(page, tmp_path, heading, column, times, state):
    path = tmp_path / "page.html"
    path.write_text(clicked(page, heading, times))
    read = Reader(browse(path, tmp_path, "--dump-dom"))
    assert read.sorted_by == {column: state}
    seen = [row[column] for row in read.rows[1:]]
    given = [cell for cell in seen if cell not in ("", "-")]
    assert seen[: len(given)] == given, "what was not measured comes last"
    key = float if heading == "here" else str
    assert given == sorted(given, key=key, reverse=state == "descending")
    assert len(seen) == len(Reader(page).rows) - 1


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("size", ["1200,1600", "500,900"])
def test_a_browser_shows_it(page, tmp_path, size):
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(page)
    browse(path, tmp_path, f"--screenshot={picture}", f"--window-size={size}", "--hide-scrollbars")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000  # a blank one is smaller


def test_the_overview_has_a_sortable_heading_for_each_column(page):
    head = re.findall(r'<th scope="col" aria-sort="none".*?<button type="button">(.*?)<', page)
    assert len(head) == len(Reader(page).rows[0]) == len(Reader(page).rows[1])
