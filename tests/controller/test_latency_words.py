"""How far predicted latencies err: kept with a study, and beside them in every view, of a real small search."""

import html
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tiny_searches import make_job, search
from typer.testing import CliRunner

from controller.cli.app import app
from controller.comparison import compare
from controller.job import JobSpec
from controller.latency_words import MARGIN_PCT, latency_sentence
from controller.plots.front import front_html
from controller.policy_report import load_policy
from controller.preparation import describe
from controller.report_files import front_json, report_markdown
from controller.search_result import load_front
from controller.storage import Repository, open_database
from controller.storage.records import canonical_json
from controller.study_config import StudyConflictError
from controller.study_summary import StudySummary, summarise
from controller.summary_view import view_of
from evaluators.latency.correction import Correction
from evaluators.latency.table import load_table

if TYPE_CHECKING:
    from conftest import TinyJob

FIT = Correction(scale=1.5, overhead_ms=0.01, models=8, median_error_pct=1.0, max_error_pct=3.0)
SENTENCE = f"latencies are predictions: 90 % of measured times are expected within {FIT.margin_pct:.1f} % of them"


@pytest.fixture(scope="module")
def job(tiny_image: "TinyJob", tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    """A searched job whose table has a correction."""
    folder = tmp_path_factory.mktemp("corrected")
    table = load_table(tiny_image.table)
    plain = make_job(tiny_image, folder, 4, search={"sampler": "random", "trials": 4})
    path = folder / "table.json"
    table.with_correction(describe(plain).workload, FIT).save(path)
    found = plain.model_copy(update={"target": plain.target.model_copy(update={"table": path})})
    search(found)
    return found


@pytest.fixture
def summary(job: JobSpec) -> StudySummary:
    return summarise(Repository(open_database(job.storage)), job.name)


def shown(job: JobSpec, *words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words), "--storage", job.storage])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_view_of_a_study_says_how_far_its_latencies_err(job: JobSpec, summary: StudySummary) -> None:
    result, view = load_front(job.name, job.storage), view_of(summary)
    assert result.latency_margin_pct == pytest.approx(FIT.margin_pct)
    assert result.latency_sentence == SENTENCE
    assert shown(job, "front", job.name).count(SENTENCE) == 1
    assert json.loads(shown(job, "front", job.name, "--json"))["latency_margin_pct"] == pytest.approx(FIT.margin_pct)
    assert SENTENCE[1:] in html.unescape(front_html(view))
    assert SENTENCE in result._repr_html_()
    assert SENTENCE[1:] in report_markdown(view)
    assert json.loads(front_json(view))["latency_margin_pct"] == pytest.approx(FIT.margin_pct)
    assert shown(job, "compare", job.name, job.name).count(SENTENCE) == 1


def test_a_policy_has_its_own_interval(job: JobSpec) -> None:
    report = load_policy(job.name, job.storage, trial=0)
    assert (report.latency_low_ms, report.latency_high_ms) == pytest.approx(FIT.interval(report.latency_ms))
    text = shown(job, "policy", job.name, "--trial", 0)
    assert " ms to " in text
    assert SENTENCE in text


def test_a_study_that_an_earlier_version_kept_opens_and_goes_on(job: JobSpec, summary: StudySummary) -> None:
    from controller.preparation import price
    from controller.search import study_config_of
    from controller.study_config import check_same_study
    from workers.trial import TrialWorker

    fixed = {**summary.fixed, "job": {key: value for key, value in summary.fixed["job"].items() if key != MARGIN_PCT}}
    earlier = replace(summary, record=replace(summary.record, fixed_json=canonical_json(fixed)))
    assert (earlier.latency_margin_pct, earlier.latency_sentence) == (None, "")
    assert "predictions" not in front_html(view_of(earlier))
    assert compare(earlier, summary).first.latency_sentence == ""
    priced = price(job, describe(job), lambda *_: None)
    config = study_config_of(job, priced, TrialWorker(priced.description.spec), earlier.chance_quality)
    check_same_study(earlier.record, config)
    with pytest.raises(StudyConflictError, match="target"):
        check_same_study(earlier.record, replace(config, target_digest="another"))


def test_a_policy_is_not_split_by_a_table_that_changed(job: JobSpec) -> None:
    path = job.target.table
    assert path is not None
    kept = path.read_text()
    table = load_table(path)
    try:
        table.with_correction(describe(job).workload, FIT.model_copy(update={"scale": 2.0})).save(path)
        report = load_policy(job.name, job.storage, trial=0)
    finally:
        path.write_text(kept)
    assert report.latency_low_ms is None
    assert all(unit.latency_share is None for unit in report.units)
    assert "calibrated or replaced since" in report.notes[0]


def test_where_nobody_measured_the_error_the_sentence_says_so() -> None:
    assert "of unknown error" in latency_sentence(None)
    assert "on the hardware of the table" in latency_sentence(5.0, foreign=True)
    assert latency_sentence(5.0, extrapolated=True).endswith("of policies within what it was measured for")
