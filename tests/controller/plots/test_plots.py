import base64
import csv
import hashlib
import json
import math
import re
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.plots.front import front_html
from controller.plots.page import script_json
from controller.plots.picture import front_line, front_png
from controller.report_details import ReportDetails
from controller.report_files import front_json, report_markdown, trials_csv, write_report_files
from controller.results import HoldoutCheck, LevelGroup, MetricCheck, PairedDifference
from controller.sensitivity.report import Axis, Change, SensitivityReport, UnitSensitivity
from controller.study_view import PointRole, PointState, PointView, StudyView, UnitView, number, size_text


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


def empty_view():
    return StudyView(
        study="s",
        title="Nothing yet",
        metric="accuracy",
        objectives=("quality",),
        dense_quality=0.9,
        dense_latency_ms=1.0,
        dense_size_bytes=10,
        points=(),
    )


def point(quality, latency_ms, **fields):
    return PointView(
        trial=0, name="p", role=PointRole.TRIAL, quality=quality, latency_ms=latency_ms, size_bytes=1, **fields
    )


def test_page_loads_nothing_from_elsewhere_and_runs_its_own_script_only(make_view):
    page = front_html(make_view())
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL).group(1)
    frame = page.replace(script, "")
    assert not re.search(r"(\b(src|href)\s*=|url\(|@import)", frame)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", script)
    assert len(page) < 60_000


def test_page_draws_each_point_in_its_place(make_view):
    data = data_of(front_html(make_view()))
    kinds = {p["name"]: p["kind"] for p in data["points"]}
    assert kinds == {
        "dense": "dense",
        "uniform w8a8": "uniform",
        "trial 0": "other",
        "trial 1": "front",
        "trial 2": "front",
        "trial 3": "infeasible",
    }
    assert [cost["title"] for cost in data["costs"]] == ["latency (ms)", "size (MB)"]
    assert data["points"][data["chosen"]]["name"] == "trial 1"
    assert [row["name"] for row in data["rows"]] == ["attention", "feed_forward"]
    shown = data["points"][3]
    assert (shown["x"], shown["y"], shown["low"], shown["high"]) == ([8.0, 25.0], 0.915, 0.9, 0.93)
    keep, form = data["units"][0]["choices"][shown["policy"][0]]
    assert (keep, data["units"][0]["groups"], data["formats"][form]) == (9, 12, {"name": "w8a8", "bits": 8})
    assert "accuracy 0.9150 (0.9000 to 0.9300)" in shown["hover"]


def test_trials_without_a_score_stand_on_the_page_with_the_reason(make_view):
    view = make_view()
    unscored = (
        replace(view.points[-1], latency_ms=7.0),
        replace(view.points[-1], state=PointState.PRUNED, latency_ms=30.0, feasible=False),
        replace(view.points[-1], state=PointState.RUNNING, latency_ms=3.0, feasible=True),
    )
    points = data_of(front_html(replace(view, points=(*view.points[:-1], *unscored))))["points"]
    assert [(p["kind"], p["y"]) for p in points[-3:]] == [("unscored", None)] * 3
    reasons = [p["hover"][1] for p in points[-3:]]
    assert reasons == [
        "failed: out of memory",
        "not scored, as its costs alone break a constraint",
        "not scored yet",
    ]


def test_times_of_units_stand_beside_the_policy(make_view):
    view = make_view()
    times = {p.as_policy.digest: (1.0, 2.00001, 3.0, 4.0, 0.5) for p in view.points if p.trial == 1}
    order = ("layer.1.feed_forward", "layer.1.attention", "layer.0.feed_forward", "layer.0.attention")
    data = data_of(front_html(view, ReportDetails(units=order, unit_times=times)))
    assert [p["times"] for p in data["points"] if p["times"]] == [[1.0, 2.0, 3.0, 4.0, 0.5]]
    assert tuple(unit["name"] for unit in data["units"]) == order


def test_layers_stand_in_the_order_of_their_numbers(make_view):
    view = make_view()
    unit = UnitView(keep=1, groups=2, format="fp32", weight_bits=32)
    point = replace(view.points[0], policy={f"layer.{n}.attention": unit for n in (0, 10, 2)})
    data = data_of(front_html(replace(view, points=(point,))))
    assert [unit["name"] for unit in data["units"]] == ["layer.0.attention", "layer.2.attention", "layer.10.attention"]
    assert data["rows"] == [{"name": "attention", "units": [0, 1, 2]}]
    numbered = replace(view.points[0], policy={f"stage.{n}.inner.{k}": unit for n in (0, 1) for k in (0, 1)})
    rows = data_of(front_html(replace(view, points=(numbered,))))["rows"]
    assert rows == [{"name": "all units", "units": [0, 1, 2, 3]}]


def test_losses_that_were_measured_stand_on_the_page(make_view):
    unit = UnitSensitivity(
        name="layer.<b>",
        kind="heads",
        groups=4,
        latency_ms=1.0,
        latency_share=0.5,
        size_bytes=10,
        size_share=0.25,
        changes=tuple(
            Change(
                axis=Axis.KEEP, keep=k, share=k / 4, format="fp32", saved_latency_ms=0.1, saved_size_bytes=1, **score
            )
            for k, score in ((2, {}), (0, {"loss": 0.125, "loss_low": 0.1, "loss_high": 0.2, "examples": 25}))
        ),
    )
    report = SensitivityReport(
        study="s",
        metric="accuracy",
        reference="dense",
        reference_quality=0.9,
        examples=400,
        units=(unit,),
        scored=1,
        missing=0,
        confidence=0.95,
    )
    page = front_html(make_view(), ReportDetails(sensitivity=report))
    assert "<h2>Loss of accuracy</h2>" in page
    assert "<th>keep 0</th>" in page
    assert "<th>keep 0.5</th>" not in page
    assert "layer.&lt;b&gt;" in page
    assert "+0.1250" in page


def test_table_stands_without_script(make_view):
    page = front_html(make_view())
    assert page.count("<tr tabindex") + page.count('<tr class="best"') == 4
    assert (
        "<td>0.9150 (0.9000 to 0.9300)</td><td>0.9130</td><td>+0.0020</td><td>8.000</td><td>0.40</td><td>25 MB</td>"
        in page
    )


def test_empty_study_has_page_picture_and_files(tmp_path):
    view = empty_view()
    assert data_of(front_html(view))["chosen"] is None
    assert "No trial of 0 met the constraints yet." in report_markdown(view)
    assert len(trials_csv(view).splitlines()) == 1
    assert len(write_report_files(view, tmp_path / "new" / "folder")) == 5


def test_non_finite_points_are_left_out():
    points = tuple(point(q, x, on_front=True) for q, x in ((math.nan, 1.0), (0.5, math.inf), (None, 1.0), (0.5, 1.0)))
    view = StudyView(**{f: getattr(empty_view(), f) for f in StudyView.__slots__} | {"points": points})
    assert [p["y"] for p in data_of(front_html(view))["points"]] == [None, None, 0.5]
    assert len(json.loads(front_json(view))["front"]) == 1
    assert "nan" not in trials_csv(view)


def test_picture_has_its_size_and_takes_odd_text(make_view):
    picture = front_png(make_view(" $\\frac$ 漢字"))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (1080, 864)


def test_files_are_written_whole(make_view, tmp_path):
    paths = write_report_files(make_view(), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)
    body = json.loads((tmp_path / "front.json").read_text())
    assert [p["trial"] for p in body["front"]] == [2, 1]
    assert [p["name"] for p in body["baselines"]] == ["dense", "uniform w8a8"]
    assert body["constraints"]["min_quality"] == 0.8
    rows = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(rows) == 1 + 7
    assert (
        "Trial 1 has accuracy 0.9150 (dense 0.9200) at 0.40 times the latency" in (tmp_path / "report.md").read_text()
    )


def test_files_and_page_are_honest_about_the_holdout(make_view, tmp_path):
    check = HoldoutCheck(
        members=2,
        confidence=0.95,
        mean_gap=0.002,
        dense_gap=None,
        level=(LevelGroup(trials=(1, 2), names=("trial 1", "keep 0.5, <b>")),),
        apart=(PairedDifference(better="trial 1", worse="trial 2", difference=0.02, low=0.01, high=0.03),) * 7,
    )
    view = make_view()
    points = tuple(
        replace(p, knee=True, holdout_low=0.89, holdout_high=0.94) if p.trial == 1 else p for p in view.points
    )
    reference = {"quality": 0.5, "latency_ms": 20.0, "size_bytes": 90_000_000.0}
    view = replace(view, points=points, reference=reference, holdout_check=check)
    write_report_files(view, tmp_path)
    body = json.loads((tmp_path / "front.json").read_text())
    assert body["holdout"]["level"][0]["trials"] == [1, 2]
    assert body["reference"] == reference
    assert [p["knee"] for p in body["front"]] == [False, True]
    assert body["front"][1]["search_gap"] == pytest.approx(0.002)
    report = (tmp_path / "report.md").read_text()
    assert "| trial 1 (knee) \\* | 0.9150 (0.9000 to 0.9300) | 0.9130 (0.8900 to 0.9400) | +0.0020 |" in report
    assert "search score less holdout score: \\+0.0020 on average over 2 front members" in report
    assert "intervals overlap: trial 1, (keep 0.5, &lt;b&gt;)" in report
    assert "trial 1 above trial 2 by 0.0200 (0.0100 to 0.0300); and 2 more" in report
    sentence = (
        "Hypervolume 0.5000 from the reference point accuracy 0.5000 (chance), latency 20.00 ms (dense), "
        "size 90 MB (dense)."
    )
    assert sentence in report
    page = (tmp_path / "front.html").read_text()
    assert sentence in page
    assert "trial 1 (knee)" in page
    assert "overlap: trial 1, (keep 0.5, &lt;b&gt;)" in page
    assert [p["name"] for p in data_of(page)["points"] if p["knee"]] == ["trial 1"]
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())}
    assert (rows["trial 1"]["holdout_low"], rows["trial 1"]["holdout_high"]) == ("0.89", "0.94")


def test_the_tasks_metric_stands_beside_another_quality(make_view, tmp_path):
    view = make_view()
    check = MetricCheck(value=0.91, low=0.89, high=0.93)
    points = tuple(replace(p, holdout_metric=check) if p.trial == 1 else p for p in view.points)
    view = replace(view, metric="fidelity", task_metric="accuracy<b>", points=points)
    write_report_files(view, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "| policy | fidelity | holdout | gap | accuracy&lt;b&gt; on holdout | latency (ms) |" in report
    assert "| 0.9150 (0.9000 to 0.9300) | 0.9130 | +0.0020 | 0.9100 (0.8900 to 0.9300) | 8.000 |" in report
    assert "Fidelity is how far the outputs overlap with the dense model's" in report
    assert "accuracy&lt;b&gt; on holdout" in (tmp_path / "front.html").read_text()
    body = json.loads((tmp_path / "front.json").read_text())
    assert (body["metric"], body["task_metric"]) == ("fidelity", "accuracy<b>")
    assert [p["holdout_metric"] for p in body["front"]] == [None, {"value": 0.91, "low": 0.89, "high": 0.93}]
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())}
    assert (rows["trial 1"]["holdout_metric"], rows["trial 2"]["holdout_metric"]) == ("0.91", "")


def test_reports_by_the_tasks_metric_do_not_speak_of_another(make_view):
    report = report_markdown(make_view())
    assert "on holdout" not in report
    assert "idelity" not in report


def test_headline_falls_back_to_the_best_feasible_member(make_view):
    view = make_view()
    strict = StudyView(**{f: getattr(view, f) for f in StudyView.__slots__} | {"dense_quality": 0.99})
    assert strict.headline.name == "trial 1"


def test_summary_of_a_policy():
    units = {
        "a": UnitView(keep=6, groups=12, format="w8a8", weight_bits=8),
        "b": UnitView(keep=0, groups=4, format="fp32", weight_bits=32),
    }
    assert units["a"].text == "keep 6/12, w8a8"
    assert units["b"].text == "left out"
    assert point(1.0, 1.0, policy=units).policy_summary == "25% kept on average; 1 of 2 units left out; 1 in w8a8"


def test_figures_in_words():
    assert [number(v) for v in (0.91, 8.0, 1234.0, 56789.0, None)] == ["0.9100", "8.000", "1234", "56,789", "-"]
    assert [size_text(v) for v in (999, 25_000, 25_000_000, 1_500_000_000)] == ["999 B", "25 kB", "25 MB", "1.5 GB"]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 100)), max_size=12))
def test_line_of_the_front_is_what_none_beats(pairs):
    members = sorted((point(q, x) for q, x in pairs), key=lambda p: (p.latency_ms, -p.quality))
    naive = {(q, x) for q, x in pairs if not any((a >= q and b < x) or (a > q and b <= x) for a, b in pairs)}
    line = front_line(members)
    assert {(p.quality, p.latency_ms) for p in line} == naive
    assert len(line) == len(naive)


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_script_json_round_trips_and_cannot_end_the_script(value):
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)
