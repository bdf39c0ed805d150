"""Where the time of a policy goes: figures that add up, and choices that buy no time, on invented tables."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from controller.errors import UsageError
from controller.explanation.explain import run_explain
from controller.explanation.report import ExplainReport
from controller.job import parse_job
from controller.policy_report import load_policy
from controller.preparation import describe
from controller.results import FOREIGN_TABLE
from controller.retargeting.target_change import TargetChange
from controller.storage import Repository, TrialRecord, TrialRole, TrialState, open_database
from evaluators.costs import CostModel
from evaluators.latency.correction import Correction
from evaluators.latency.idle_choices import IdleKind
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.single_changes import ChangeKind
from evaluators.latency.table import Entry, ForeignTableError, LatencyTable, load_table
from evaluators.latency.workload import OperatorKind
from search_spaces.policy import Choice, Policy

if TYPE_CHECKING:
    from conftest import TinyJob

Explain = Callable[..., ExplainReport]


def policy_of(tiny: "TinyJob", **choices: Choice) -> Policy:
    """The dense policy with some units changed."""
    from workers.model import load_structure

    structure = load_structure(tiny.model)
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in structure.units})
    return dense.replace(**choices)


@pytest.fixture
def explain(tiny_image: "TinyJob", tmp_path: Path) -> Explain:
    """Returns a function that stores a study with one policy and explains it on a table changed row by row."""

    def run(policy: Policy, factor: Callable[[Entry], float] = lambda entry: 1.0, **options: Any) -> ExplainReport:
        table = load_table(tiny_image.table)
        entries = tuple(e.model_copy(update={"median_ms": e.median_ms * factor(e)}) for e in table.entries)
        fit = Correction(scale=1.5, overhead_ms=0.01, models=4, median_error_pct=1.0, max_error_pct=3.0)
        path = tmp_path / "explained.json"
        changed = table.model_copy(update={"entries": entries})
        job = parse_job(
            {
                "name": "tiny",
                "model": {"id": tiny_image.model.id, "task": tiny_image.model.task},
                "data": tiny_image.data.model_dump(mode="json"),
                "space": {"keep": [1.0, 0.5, 0.0], "formats": options.pop("formats", ["fp32", "w8a8"])},
                "target": {"table": str(path)},
                "storage": f"sqlite:///{tmp_path}/paretrim.db",
            }
        )
        description = describe(job)
        changed = changed.with_correction(description.workload, fit) if options.pop("corrected", True) else changed
        changed.save(path)
        costs = CostModel(description.structure, LatencyPredictor(changed, description.workload))
        policies = {"dense": description.space.dense_policy(), "trial 1": policy, **options.pop("others", {})}
        trials = [
            TrialRecord(
                number=number,
                role=TrialRole.TRIAL,
                name=name,
                policy=each,
                state=TrialState.COMPLETE,
                metric="accuracy",
                quality=0.9 if number < 2 else 0.875,
                costs=costs.costs(each),
            )
            for number, (name, each) in enumerate(policies.items())
        ]
        space = {"units": {unit.name: {"groups": unit.groups} for unit in description.structure.units}}
        Repository(open_database(job.storage)).create_study(
            name="tiny",
            job_digest="",
            job=job.public_dict(),
            fixed_json=json.dumps({"evaluation": "e", "target": changed.checksum, "job": {}, "space": space}),
            space_digest="",
            objectives=["quality", "latency_ms"],
            trials=trials,
        )
        arguments = {"trial": 1, "change": TargetChange(), "out": None, **options}
        return run_explain("tiny", job.storage, **arguments)

    return run


def test_rows_add_up_to_the_prediction(tiny_image: "TinyJob", explain: Explain) -> None:
    policy = policy_of(
        tiny_image, **{"layer.0.attention": Choice(2, "w8a8"), "layer.1.feed_forward": Choice(0, "fp32")}
    )
    report = explain(policy)
    *parts, total = [row for row in report.rows if row.operator is None]
    assert total.name == "total"
    assert sum(row.latency_ms for row in parts) == pytest.approx(report.latency_ms)
    assert sum(row.dense_ms for row in parts) == pytest.approx(report.dense_ms)
    assert sum(row.share for row in parts) == pytest.approx(1)
    for part in parts:
        operators = [row.latency_ms for row in report.rows if row.operator is not None and row.name == part.name]
        assert not operators or sum(operators) == pytest.approx(part.latency_ms)
    by_name = {row.name: row for row in parts}
    assert by_name["overhead of a call"].latency_ms == 0.01
    assert by_name["layer.1.feed_forward"].latency_ms == 0
    assert report.low_ms is not None
    assert report.low_ms < report.latency_ms
    assert "90 % of measured times are expected within" in report.sentences[-1]
    assert " ms)" in report.files[0].read_text().split("predicted latency")[1][:60]
    assert "2 of 4, w8a8" in by_name["layer.0.attention"].choice


def test_sentences_and_the_strip_of_the_policy_say_what_the_rows_say(
    tiny_image: "TinyJob", explain: Explain, tmp_path: Path
) -> None:
    report = explain(policy_of(tiny_image, **{"layer.0.attention": Choice(2, "w8a8")}))
    rows = {row.name: row for row in report.rows if row.operator is None}
    strips = load_policy("tiny", f"sqlite:///{tmp_path}/paretrim.db", trial=1).units
    assert strips
    for strip in strips:
        assert strip.latency_ms == pytest.approx(rows[strip.name].latency_ms)
        assert strip.latency_share == pytest.approx(rows[strip.name].share)

    said = " / ".join(report.sentences)

    def ms(pattern: str) -> float:
        found = re.search(pattern.replace("MS", r"([\d.e+-]+) ms"), said)
        assert found is not None, said
        return float(found[1])

    outside, call = rows["outside units"], rows["overhead of a call"]
    assert ms("MS lie outside units") == pytest.approx(outside.latency_ms + call.latency_ms, rel=0.01)
    sorts = ("products with weights: MS", "all other operators: MS", "float and integer takes MS")
    assert sum(map(ms, sorts)) + call.latency_ms == pytest.approx(report.latency_ms, rel=0.01)
    assert ms("whole model, MS against") == pytest.approx((report.latency_ms - call.latency_ms) / 3, rel=0.01)


def test_a_table_without_a_correction_has_no_interval(tiny_image: "TinyJob", explain: Explain) -> None:
    report = explain(policy_of(tiny_image), corrected=False)
    assert (report.low_ms, report.latency_ratio, report.size_ratio) == (None, 1, 1)
    assert report.findings == ()
    assert "of unknown error" in report.sentences[-1]


def test_the_dense_model_has_made_no_choice(tiny_image: "TinyJob", explain: Explain) -> None:
    report = explain(policy_of(tiny_image, **{"layer.0.attention": Choice(2, "w8a8")}), trial=0)
    assert (report.findings, report.untold) == ((), ())
    assert "the dense model leaves nothing out" in report.verdict


def test_changes_of_one_unit_that_would_save_most_are_named(tiny_image: "TinyJob", explain: Explain) -> None:
    """One block was left in fp32, where int8 takes a fifth of its time; a trial scored the policy with it in int8."""
    eights = {
        f"layer.{layer}.{part}": Choice(groups, "w8a8")
        for layer in (0, 1)
        for part, groups in (("attention", 4), ("feed_forward", 64))
    }
    policy = policy_of(tiny_image, **{**eights, "layer.1.feed_forward": Choice(64, "fp32")})
    report = explain(
        policy,
        lambda entry: {"w8a8": 0.01, "w4": 0.001}.get(entry.format or "", 1.0),
        others={"trial 2": policy_of(tiny_image, **eights)},
    )
    first = report.savings[0]
    assert (first.unit, first.choice, first.other) == (
        "layer.1.feed_forward",
        "keep 64 of 64, fp32",
        "keep 64 of 64, w8a8",
    )
    times = {row.name: row.latency_ms for row in report.rows if row.operator is None}
    saved_ms = times["layer.1.feed_forward"] - times["layer.0.feed_forward"]
    assert first.saved_ms == pytest.approx(saved_ms)
    assert first.share == pytest.approx(saved_ms / report.latency_ms)
    assert (first.trial, first.quality) == (2, 0.875)
    assert first.sentence.startswith("layer.1.feed_forward in w8a8 instead of fp32 would save ")
    assert first.sentence.endswith("; trial 2 is that, with accuracy 0.8750 (-0.0250)")
    assert first.sentence in report.files[0].read_text()
    assert json.loads(report.files[2].read_text())["savings"][0]["unit"] == "layer.1.feed_forward"

    keeps = report.savings[1:]
    assert keeps
    assert {saving.other for saving in keeps} <= {"keep 2 of 4, w8a8", "keep 32 of 64, w8a8", "keep 32 of 64, fp32"}
    assert all(saving.trial is None and "no trial has scored that" in saving.sentence for saving in keeps)
    assert [saving.saved_ms for saving in keeps] == sorted((saving.saved_ms for saving in keeps), reverse=True)


def test_a_format_that_is_slower_is_no_saving_a_second_time(tiny_image: "TinyJob", explain: Explain) -> None:
    policy = policy_of(tiny_image, **{"layer.0.feed_forward": Choice(64, "w8a8")})
    report = explain(policy, lambda entry: 20.0 if entry.format == "w8a8" else 1.0)
    assert [finding.kind for finding in report.findings] == [IdleKind.FORMAT_IS_SLOWER]
    assert not any(saving.kind is ChangeKind.FORMAT for saving in report.savings)


def test_choices_that_buy_time_are_said_to(tiny_image: "TinyJob", explain: Explain) -> None:
    report = explain(policy_of(tiny_image, **{"layer.0.feed_forward": Choice(0, "fp32")}))
    assert report.verdict == "every choice of the policy buys time on this target"
    assert report.verdict in report.files[0].read_text()


def test_what_the_table_can_not_price_is_not_said_to_buy_time(
    tiny_image: "TinyJob", explain: Explain, tmp_path: Path
) -> None:
    """A table without the dense feed-forward block in w8a8 knows the policy, and not what else there was."""
    policy = policy_of(tiny_image, **{"layer.0.feed_forward": Choice(32, "w8a8")})
    explain(policy)
    table = load_table(tmp_path / "explained.json")
    wide = [
        e for e in table.entries if e.format == "w8a8" and 64 in (e.axes.get("in_features"), e.axes.get("out_features"))
    ]
    path = tmp_path / "less.json"
    table.model_copy(update={"entries": tuple(e for e in table.entries if e not in wide)}).save(path)
    storage = f"sqlite:///{tmp_path}/paretrim.db"
    report = run_explain("tiny", storage, trial=1, change=TargetChange(table=path), out=None)
    assert report.untold == ("layer.0.feed_forward",)
    assert "is not known: the table can't price what else could be chosen for layer.0.feed_forward" in report.verdict


def test_a_table_that_changed_since_the_search_is_refused(
    tiny_image: "TinyJob", explain: Explain, tmp_path: Path
) -> None:
    explain(policy_of(tiny_image))
    path, storage = tmp_path / "explained.json", f"sqlite:///{tmp_path}/paretrim.db"
    table = load_table(path)
    table.model_copy(update={"corrections": ()}).save(path)
    with pytest.raises(UsageError, match=r"replaced since; put it back, or .* with --table FILE"):
        run_explain("tiny", storage, trial=1, change=TargetChange(), out=None)
    report = run_explain("tiny", storage, trial=1, change=TargetChange(table=path), out=None)
    assert report.low_ms is None


@pytest.mark.parametrize(
    ("allowed", "option"),
    [({"allow_extrapolation": True}, "--extrapolate"), ({"allow_foreign_table": True}, "--allow-foreign-table")],
)
def test_planning_needs_another_table(allowed: dict[str, bool], option: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{option} says what another table may lack.*add --table FILE"):
        run_explain("tiny", f"sqlite:///{tmp_path}/x.db", trial=1, change=TargetChange(**allowed), out=None)


def test_a_table_that_lacks_something_names_the_whole_command(
    tiny_image: "TinyJob", explain: Explain, tmp_path: Path
) -> None:
    explain(policy_of(tiny_image))
    table = load_table(tiny_image.table)
    path = tmp_path / "short.json"
    table.model_copy(update={"entries": table.entries[:1]}).save(path)
    storage = f"sqlite:///{tmp_path}/paretrim.db"
    with pytest.raises(MissingEntryError, match=f"paretrim profile --model {tiny_image.model.id} .* --out {path}"):
        run_explain("tiny", storage, trial=1, change=TargetChange(table=path), out=None)


@pytest.mark.parametrize(("slow", "fast"), [("w4", "w4g128"), ("w4g128", "w4")])
def test_a_format_of_as_many_bits_that_is_faster_is_named(
    tiny_image: "TinyJob", explain: Explain, slow: str, fast: str
) -> None:
    policy = policy_of(tiny_image, **{"layer.0.feed_forward": Choice(64, slow)})
    report = explain(policy, lambda entry: 1e-4 if entry.format == fast else 1.0, formats=["fp32", "w4", "w4g128"])
    (finding,) = report.findings
    assert f"{slow} is slower here than {fast}" in finding.sentence
    assert finding.sentence.endswith("has as many bits a weight: it buys no time")


def test_a_format_that_is_slower_here_is_named(tiny_image: "TinyJob", explain: Explain) -> None:
    policy = policy_of(tiny_image, **{"layer.0.feed_forward": Choice(64, "w8a8")})
    report = explain(policy, lambda entry: 20.0 if entry.format == "w8a8" else 1.0)
    (finding,) = report.findings
    assert (finding.unit, finding.kind) == ("layer.0.feed_forward", IdleKind.FORMAT_IS_SLOWER)
    assert "w8a8 is slower here than fp32" in finding.sentence
    assert finding.saved_ms < 0
    assert report.latency_ratio > 1 > report.size_ratio
    assert "smaller than it is fast" in report.sentences[1]


def test_a_width_that_costs_as_much_as_a_wider_one_is_named(tiny_image: "TinyJob", explain: Explain) -> None:
    policy = policy_of(tiny_image, **{"layer.0.attention": Choice(2, "fp32")})
    times: dict[OperatorKind, float] = {}
    report = explain(policy, lambda entry: times.setdefault(entry.kind, entry.median_ms) / entry.median_ms)
    (finding,) = report.findings
    assert (finding.unit, finding.kind) == ("layer.0.attention", IdleKind.WIDER_COSTS_THE_SAME)
    assert finding.better == "keep 4 of 4, fp32"
    assert "its width 16 is no multiple of 32, 32 is" in finding.sentence


def test_pruning_that_saves_little_is_named(tiny_image: "TinyJob", explain: Explain) -> None:
    policy = policy_of(tiny_image, **{"layer.0.attention": Choice(2, "fp32")})
    report = explain(policy, lambda entry: 1e5 if entry.kind is OperatorKind.CONVOLUTION else 1.0)
    (finding,) = report.findings
    assert finding.kind is IdleKind.PRUNING_SAVES_LITTLE
    assert 0 < finding.saved_ms < 0.01 * report.dense_ms


def test_files_hold_all_and_load_nothing(tiny_image: "TinyJob", explain: Explain, tmp_path: Path) -> None:
    report = explain(policy_of(tiny_image, **{"layer.0.attention": Choice(2, "w8a8")}), out=tmp_path / "out")
    assert [path.name for path in report.files] == ["explain-1.html", "explain-1.png", "explain-1.json"]
    page = report.files[0].read_text()
    assert not re.search(r"(\b(src|href)\s*=|url\(|@import|<script)", page)
    for row in report.rows:
        assert row.name in page
    assert report.files[1].read_bytes().startswith(b"\x89PNG")
    assert json.loads(report.files[2].read_text())["rows"][-1]["name"] == "total"


def test_another_table_is_checked_and_marked(tiny_image: "TinyJob", explain: Explain, tmp_path: Path) -> None:
    table: LatencyTable = load_table(tiny_image.table)
    path = tmp_path / "foreign.json"
    mark = table.fingerprint.model_copy(update={"device": "Another CPU"})
    table.model_copy(update={"fingerprint": mark}).save(path)
    with pytest.raises(ForeignTableError, match="Another CPU"):
        explain(policy_of(tiny_image), change=TargetChange(table=path))
    storage = f"sqlite:///{tmp_path}/paretrim.db"
    change = TargetChange(table=path, allow_foreign_table=True)
    report = run_explain("tiny", storage, trial=1, change=change, out=None)
    assert report.foreign_table
    assert FOREIGN_TABLE in report.files[0].read_text()
    with pytest.raises(UsageError, match="there is none"):
        run_explain("tiny", storage, trial=7, change=TargetChange(), out=None)
