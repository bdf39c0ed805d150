"""Hostile text in names, metrics and data is shown as text, in the page, the files and MLflow."""

import csv
import html.parser
import io
import json
import re

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.plots.front import front_html
from controller.plots.picture import front_png
from controller.report_files import front_json, report_markdown, trials_csv
from controller.safe_writing import csv_cell
from controller.tracking.content import study_note
from controller.tracking.tracker import Tracker
from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance, Source
from evaluators.latency.workload import OperatorKind

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # mlflow's models

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "<!--<script>",
    "javascript:alert(1) [x](javascript:alert(1)) `code` | cell",
    "%{x} ${y} $a_b$ {{z}} \\",
    "line\nbreak\u2028\x00\x1b[31m",
    "=HYPERLINK(1)",
]


class Tags(html.parser.HTMLParser):
    """Collects elements and attributes, and the text of the data element."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.attributes = set()
        self.data = ""
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.attributes.update(name for name, _ in attrs)
        self.inside = ("id", "data") in attrs

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, text):
        if self.inside:
            self.data += text


def parsed(page):
    tags = Tags()
    tags.feed(page)
    tags.close()
    return tags


@pytest.mark.parametrize("text", HOSTILE)
def test_page_has_the_elements_of_a_harmless_one(make_view, text):
    plain, hostile = parsed(front_html(make_view())), parsed(front_html(make_view(text)))
    assert hostile.found == plain.found
    assert hostile.attributes == plain.attributes
    names = [p["name"] for p in json.loads(hostile.data)["points"]]
    assert f"trial 1{text}" in names


@pytest.mark.parametrize("text", HOSTILE)
def test_files_and_picture_keep_it_as_text(make_view, text):
    view = make_view(text)
    assert front_png(view).startswith(b"\x89PNG")
    assert json.loads(front_json(view))["front"][1]["name"] == f"trial 1{text}"
    rows = list(csv.DictReader(io.StringIO(trials_csv(view), newline="")))
    assert [row["name"] for row in rows] == [p.name for p in view.points]
    assert len([line for line in report_markdown(view).splitlines() if line.startswith("| trial 1")]) == 1
    for part in (report_markdown(view), study_note(view)):
        assert "<" not in part
        assert not re.search(r"(?<!\\)\]\(", part)
        assert "\x1b" not in part


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_spreadsheets_take_no_cell_for_a_formula(text):
    assert csv_cell(text) == "'" + text


def test_mlflow_takes_all_of_it(make_view, outbox, tmp_path):
    lines = []
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = Tracker(uri, outbox, study="s", experiment="hostile", say=lines.append)
    text = "".join(HOSTILE)
    tracker.begin(name=text, metric=text, params={text: text}, job_yaml=text)
    tracker.progress(1, {text: 1.0})
    tracker.finish(make_view(text), ())
    tracker.start()
    assert tracker.flush(30)
    tracker.stop(10)
    assert lines == []


@pytest.mark.parametrize("text", HOSTILE)
def test_the_terminal_shows_a_table_of_it_as_text(tmp_path, text):
    row = Entry(
        kind=OperatorKind.ACTIVATION,
        function=text,
        format=text,
        axes={"tokens": 8, "features": 8},
        median_ms=1.0,
        spread_ms=0.1,
        repeats=3,
        working_set_bytes=0,
    )
    wider = row.model_copy(update={"axes": {"tokens": 8, "features": 64}, "median_ms": 0.1})
    source = Source(
        name=text,
        url=text,
        licence=text,
        file=text,
        file_sha256="0" * 64,
        rows=1,
        unit="ms",
        unit_basis="stated",
        assumptions=(text,),
    )
    table = LatencyTable(
        target=text,
        fingerprint=Fingerprint(device=text, flags=(text,), runtime=text, runtime_version=text, threads=1, os=text),
        provenance=Provenance(measured_at=text, clocks=text, notes=(text,), sources=(source,)),
        entries=(row, wider),
    )
    table.save(tmp_path / "t.json")
    table.model_copy(update={"entries": (wider,)}).save(tmp_path / "u.json")
    path, other = str(tmp_path / "t.json"), str(tmp_path / "u.json")
    for command in (["show", path], ["check", path], ["diff", path, other], ["merge", path, other, "-o", f"{path}3"]):
        done = CliRunner().invoke(app, ["table", *command])
        assert done.exit_code == 0, done.stderr
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", done.stdout)
    assert json.loads(CliRunner().invoke(app, ["table", "show", path, "--json"]).stdout)["target"] == text
