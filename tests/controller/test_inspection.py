"""Fronts beside each other and policies as strips, of real searches of a small model."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console
from tiny_searches import make_job, search
from typer.testing import CliRunner, Result

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.cli.render import render_front
from controller.cli.render_inspection import render_comparison
from controller.comparison import Comparison, compare, compare_studies
from controller.errors import UsageError
from controller.front import FrontMember, hypervolume
from controller.job import JobSpec, Objective
from controller.policy_report import load_policy
from controller.search_result import result_of
from controller.storage import Repository, open_database
from controller.study_summary import StudySummary, summarise
from evaluators.scores import Quality

if TYPE_CHECKING:
    from conftest import TinyJob


def search_named(tiny: "TinyJob", folder: Path, name: str, **changes: Any) -> JobSpec:
    job = make_job(tiny, folder, 8, **{"name": name, "search": {"sampler": "random", "trials": 8}, **changes})
    search(job)
    return job


@pytest.fixture(scope="module")
def storage(tiny_text: "TinyJob", tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with three searches: two alike but for their samplers, one by size alone."""
    folder = tmp_path_factory.mktemp("studies")
    job = search_named(tiny_text, folder, "one", constraints={"max_latency_ms": 1000.0})
    search_named(tiny_text, folder, "two", search={"sampler": "nsga2", "trials": 6})
    search_named(
        tiny_text, folder, "by-size", objectives=["quality", "size_bytes"], search={"sampler": "random", "trials": 2}
    )
    return job.storage


@pytest.fixture(scope="module")
def summaries(storage: str) -> Iterator[dict[str, StudySummary]]:
    engine = open_database(storage)
    yield {name: summarise(Repository(engine), name) for name in ("one", "two", "by-size")}
    engine.dispose()


def with_members(summary: StudySummary, *members: tuple[float, float]) -> StudySummary:
    """The study with a front of (quality, latency) in place of its own."""
    changed = replace(summary)
    found = [
        FrontMember(number=n, policy_digest=str(n), name=f"trial {n}", quality=q, latency_ms=ms, size_bytes=1)
        for n, (q, ms) in enumerate(members, start=1)
    ]
    changed.__dict__["front"] = sorted(found, key=lambda m: -m.latency_ms)
    return changed


def test_two_searches_are_measured_from_one_point(summaries: dict[str, StudySummary], storage: str) -> None:
    report = compare_studies("one", "two", storage)
    first, second = summaries["one"], summaries["two"]
    assert first.dense is not None
    assert report.reference == {"quality": first.chance_quality, "latency_ms": first.dense.latency_ms}
    for compared, summary in ((report.first, first), (report.second, second)):
        assert compared.members == len(summary.front)
        expected = hypervolume(
            summary.front, summary.job.objectives, dense=first.dense, chance_quality=first.chance_quality
        )
        assert compared.hypervolume == pytest.approx(expected)
        assert 0 <= compared.coverage <= 1
    assert report.notes == ()
    assert compare(first, first).first.coverage == 1
    assert compare(first, first).dominations == ()


def test_coverage_dominations_and_best_members_of_fronts_by_hand(summaries: dict[str, StudySummary]) -> None:
    one = summaries["one"]
    assert one.dense is not None
    top, ms = one.dense.quality, one.dense.latency_ms
    left = with_members(one, (top, 0.9 * ms), (top - 0.015, 0.5 * ms))
    right = with_members(one, (top, 0.8 * ms), (top - 0.015, 0.5 * ms), (top - 0.3, 0.1 * ms))
    report: Comparison = compare(left, right)
    assert report.first.coverage == pytest.approx(1 / 3)
    assert report.second.coverage == 1
    assert [(d.study, d.member, d.dominates) for d in report.dominations] == [("one", "trial 1", ("trial 1",))]
    assert report.second.hypervolume > report.first.hypervolume
    best = {row.constraint: (row.first, row.second) for row in report.best}
    assert best["accuracy at most 0.01 below dense"] == ("trial 1", "trial 1")
    assert best["accuracy at most 0.02 below dense"] == ("trial 2", "trial 2")
    assert best["latency_ms at most 1000"] == ("trial 1", "trial 1")


def with_calls(summary: StudySummary, *, evaluation: str | None = None, **target: Any) -> StudySummary:
    """The study on another target, from the same trials."""
    job = summary.job.model_copy(update={"target": summary.job.target.model_copy(update=target)})
    fixed = {**summary.fixed, "evaluation": evaluation or summary.fixed["evaluation"]}
    origin = {"study": summary.record.name, "id": summary.record.id, "trials": len(summary.trials)}
    record = replace(summary.record, id="other", name="other", fixed_json=json.dumps({**fixed, "origin": origin}))
    return replace(summary, job=job, record=record)


def test_latencies_of_other_calls_are_left_out_and_that_is_said_first(summaries: dict[str, StudySummary]) -> None:
    one = summaries["one"]
    longer = with_calls(one, sequence_length=(one.job.target.sequence_length or 0) + 16)
    report = compare(one, longer)
    assert report.apart.startswith("latencies of calls that differ do not compare, and are left out: one for ")
    assert report.apart.endswith("other is one on another target, and its page retarget.html has both fronts")
    assert (report.dominations, report.best, report.reference) == ((), (), {})
    assert report.first.hypervolume is report.second.coverage is None
    assert report.notes == ()
    console = Console(file=io.StringIO(), width=200)
    render_comparison(console, report)
    shown = cast("io.StringIO", console.file).getvalue()
    assert shown.startswith("latencies of calls that differ")
    assert not any(word in shown for word in ("covers", "dominates", "hypervolume", "best member", "next:"))
    assert "dense latency" in shown


def test_size_compares_whatever_the_calls(summaries: dict[str, StudySummary]) -> None:
    sized = replace(summaries["one"], job=summaries["one"].job.model_copy(update={"objectives": tuple(Objective)[:3]}))
    report = compare(sized, with_calls(sized, sequence_length=64))
    assert set(report.reference) == {"quality", "size_bytes"}
    assert report.first.coverage == 1


def test_a_comparison_says_what_scores_differ_in(summaries: dict[str, StudySummary]) -> None:
    one = summaries["one"]
    (note,) = compare(one, with_calls(one, batch=8, evaluation="e")).notes
    assert note.startswith("qualities were scored in calls of 1 and of 8 examples, which are calibrated")
    data = one.job.data.model_copy(update={"search": 7})
    other = replace(with_calls(one, evaluation="e"), job=one.job.model_copy(update={"data": data}))
    (note,) = compare(one, other).notes
    assert note.startswith("qualities were scored on different examples (data: search): small differences")
    (note,) = compare(one, with_calls(one, evaluation="e")).notes
    assert "a release that changed meanwhile" in note


def test_tables_that_differ_are_named_without_odd_advice(summaries: dict[str, StudySummary]) -> None:
    one = summaries["one"]
    moved = with_calls(one, threads=2)
    fixed = {**json.loads(moved.record.fixed_json), "target": "t"}
    moved = replace(moved, record=replace(moved.record, fixed_json=json.dumps(fixed)))
    (note,) = compare(one, moved).notes
    assert note.startswith("latencies come from different tables (cpu-onnxruntime, 1 thread, 1 example")
    assert note.endswith("each front is as fast as its own target")
    fixed.pop("origin")
    strange = replace(moved, record=replace(moved.record, fixed_json=json.dumps(fixed)))
    (note,) = compare(one, strange).notes
    assert note.endswith("; retarget one study to the other's table to compare them on one")


def test_what_can_not_be_compared_is_refused_with_the_reason(storage: str) -> None:
    with pytest.raises(UsageError, match="a cost that both were searched for"):
        compare_studies("one", "by-size", storage)
    with pytest.raises(UsageError, match="no study 'three'"):
        compare_studies("one", "three", storage)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_compare_prints_both_fronts(storage: str) -> None:
    done = run("compare", "one", "two", "--storage", storage)
    assert done.exit_code == 0, done.output
    front = run("front", "one", "--storage", storage).stdout
    counts = summarise(Repository(open_database(storage)), "one").counts
    assert f"\n{counts.trials} trials, " in front
    assert f"counted: {counts.text}; trials and probes are worth {counts.evaluations} evaluations" in front
    for name, count in {"trials": counts.trials, **counts.named, "baselines": counts.baselines}.items():
        assert re.search(rf"^ +{name} +{count} ", done.stdout, re.MULTILINE), name
    for text in ("one beside two", "hypervolume", "covers of the other", "measured from", "next: paretrim front"):
        assert text in done.stdout
    content = json.loads(run("compare", "one", "two", "--storage", storage, "--json").stdout)
    assert content["first"]["study"] == "one"
    assert content["schema_version"] == 1
    assert run("compare", "one", "../x", "--storage", storage).exit_code == ExitCode.USAGE


def test_a_pick_that_the_search_flatters_comes_with_a_warning(summaries: dict[str, StudySummary]) -> None:
    one = summaries["one"]
    member = next(m for m in one.front if m.number)
    assert one.dense is not None
    digests = (member.policy_digest, one.dense.policy_digest)

    def scores(*qualities: float) -> dict[str, Quality]:
        return {
            digest: Quality(
                metric="accuracy",
                value=quality,
                per_example=tuple(float(n < 200 * quality) for n in range(200)),
                kl_to_dense=0.0,
                seconds=0.0,
            )
            for digest, quality in zip(digests, qualities, strict=True)
        }

    flattered = replace(one, search=scores(0.92, 0.9), holdout=scores(0.8, 0.9))
    warning = flattered.pick(f"trial {member.number}").warning
    assert "accuracy is +0.0200 on the 200 search examples and -0.1000 on the holdout" in warning
    assert warning.endswith("search with more rows (`data: search`) or score by `quality: fidelity`")
    result = replace(result_of(one), picked=replace(one.pick("knee"), warning=warning))
    console = Console(file=io.StringIO(), width=200)
    render_front(console, result)
    assert warning in cast("io.StringIO", console.file).getvalue()
    level = replace(one, search=scores(0.92, 0.9), holdout=scores(0.915, 0.9))
    assert level.pick(f"trial {member.number}").warning == ""
    assert replace(one, holdout={}).pick(f"trial {member.number}").warning == ""


def test_a_policy_is_split_among_its_units(storage: str, summaries: dict[str, StudySummary]) -> None:
    trial = summaries["one"].front[-1].number
    report = load_policy("one", storage, trial=trial)
    shares = [unit.latency_share for unit in report.units]
    assert all(share is not None and 0 <= share <= 1 for share in shares)
    assert 0 < sum(share for share in shares if share is not None) <= 1
    policy = summaries["one"].trial(trial).policy
    assert [(u.keep, u.format) for u in report.units] == [
        (policy[u.name].keep, policy[u.name].format) for u in report.units
    ]
    done = run("policy", "one", "--trial", trial, "--storage", storage)
    assert done.exit_code == 0, done.output
    assert all(unit.name in done.stdout for unit in report.units)
    assert f"next: paretrim export one --trial {trial}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert json.loads(run("policy", "one", "--trial", 0, "--storage", storage, "--json").stdout)["name"] == "dense"
    assert run("policy", "one", "--trial", 999, "--storage", storage).exit_code == ExitCode.USAGE


def test_a_policy_whose_model_has_gone_is_shown_without_times(
    tiny_text: "TinyJob", storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.model import ModelError

    def gone(_job: JobSpec) -> None:
        raise ModelError("no folder")

    monkeypatch.setattr("controller.policy_report.describe", gone)
    report = load_policy("one", storage, trial=0)
    assert report.units
    assert all(unit.latency_share is None for unit in report.units)
    assert report.notes == ("shares of the latency are not known: no folder",)


def test_a_front_is_drawn_with_the_results_and_not_with_json(storage: str) -> None:
    done = run("front", "one", "--storage", storage)
    assert done.exit_code == 0, done.output
    assert "o front; K knee; D dense" in done.stdout
    assert "latency (ms)" in done.stdout
    assert "next: paretrim policy one --trial" in done.stdout
    json.loads(run("front", "one", "--storage", storage, "--json").stdout)
