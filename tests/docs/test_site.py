"""The site builds without a warning, and needs no network where it is read."""

import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.exit_codes import ExitCode
from controller.job import job_schema
from search_spaces.formats import FORMATS

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytest.importorskip("material", reason="the extra docs is not installed")
pytest.importorskip("latex2mathml", reason="the extra docs is not installed")

ROOT = Path(__file__).parents[2]
LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Page(html.parser.HTMLParser):
    """What a page loads, its headings' anchors, and its text."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.text, self.formulas = [], "", 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.formulas += tag == "math"
        values = dict(attrs)
        if tag in LOADING and values.get("rel") != "canonical":
            self.loads.append(values.get(LOADING[tag]) or "")

    def handle_data(self, data):
        self.text += data


def test_no_page_loads_anything_from_the_network(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 14
    for path in pages:
        assert not [url for url in Page(path).loads if "//" in url], path
    for path in site.rglob("*.css"):
        assert "url(http" not in path.read_text()


def test_formulas_are_markup_and_none_is_left_over(site):
    page = Page(site / "method.html")
    assert page.formulas > 30
    assert r"\(" not in page.text
    assert r"\[" not in page.text


def test_included_files_stand_where_their_marks_were(site):
    pages = {path: Page(path).text for path in site.rglob("*.html")}
    assert not [path for path, text in pages.items() if re.search(r"--\s*8\s*<", text)]
    assert "def compress(model: str, rows: str, out: str)" in pages[site / "how-to" / "own-model.html"]


def test_the_reference_has_every_key_of_a_job(site):
    text = Page(site / "reference" / "job-file.html").text
    schema = job_schema()
    for definition in (schema, *schema["$defs"].values()):
        for key in definition.get("properties", {}):
            assert key in text


def test_the_reference_has_every_command_exit_code_and_format(site):
    text = Page(site / "reference" / "commands.html").text
    for name in ("search", "export", "table import", "db upgrade", "--allow-foreign-table", "PARETRIM_STORAGE"):
        assert name in text
    assert all(code.meaning in text for code in ExitCode)
    formats = Page(site / "reference" / "formats.html").text
    assert all(name in formats for name in FORMATS)


def test_results_are_those_of_the_readme(site):
    text = Page(site / "results.html").text
    assert "python -m benchmarks.search_efficiency --model digits" in text
    assert "joint_value-digits" in text
