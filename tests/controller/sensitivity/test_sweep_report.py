"""What a sweep is asked is checked before anything is loaded, and its answer is put into words."""

import math

import pytest

from controller.job import JobSpec, parse_job
from controller.sensitivity.sweep_report import SweepError, SweepRow, check_sweep, is_tolerated, parse_keep, verdicts

CONTENT = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}


def job(**changes: object) -> JobSpec:
    return parse_job({**CONTENT, **changes})


def row(keep: float, drop: float | None, *, within: bool, number_format: str = "w8a8") -> SweepRow:
    return SweepRow(
        name=f"keep {keep:g}, {number_format}",
        keep=keep,
        kept=keep,
        format=number_format,
        policy_digest="d",
        quality=None if drop is None else 0.9 - drop,
        drop=drop,
        latency_ms=keep,
        latency_ratio=keep,
        size_bytes=100,
        size_ratio=keep,
        within=within,
    )


def test_a_request_takes_what_the_job_says() -> None:
    plain = check_sweep(job(), keep=(0.3, 0.7, 0.3))
    assert plain.keep == (0.7, 0.3)
    assert plain.max_drop == 0.01
    assert plain.formats[:2] == ("fp32", "w8a8")
    narrow = job(space={"formats": ["w8a8"]}, constraints={"max_quality_drop": 0.03})
    assert check_sweep(narrow, keep=(1,)).formats == ("w8a8",)
    assert check_sweep(narrow, keep=(1,)).max_drop == 0.03
    assert check_sweep(narrow, keep=(1,), max_drop=0, format="w4").formats == ("w4",)


@pytest.mark.parametrize("keep", [(0.0,), (1.01,), (-0.5,), (math.nan,), (0.5, math.inf)])
def test_ratios_out_of_range_are_refused(keep: tuple[float, ...]) -> None:
    with pytest.raises(SweepError, match=r"a keep ratio is the share .* above 0 to 1; got"):
        check_sweep(job(), keep=keep)


def test_other_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SweepError, match="1 to 100 keep ratios; got 0"):
        check_sweep(job(), keep=())
    for tolerance in (-0.01, 1.5, math.nan):
        with pytest.raises(SweepError, match="the tolerated loss is a fraction of 1"):
            check_sweep(job(), keep=(0.5,), max_drop=tolerance)
    with pytest.raises(SweepError, match="no kernel for format 'int3'; choose from fp32, w8a8"):
        check_sweep(job(), keep=(0.5,), format="int3")


def test_ratios_are_read_from_a_list() -> None:
    assert parse_keep("0.3, 0.5,.7") == (0.3, 0.5, 0.7)
    for text in ("", "0.3,", "half", "0.3;0.5"):
        with pytest.raises(SweepError, match="numbers with commas between; got"):
            parse_keep(text)


def test_the_verdict_is_the_smallest_keep_within_the_tolerated_loss() -> None:
    rows = [row(0.7, 0.0, within=True), row(0.5, 0.02, within=True), row(0.3, 0.2, within=False)]
    (verdict,) = verdicts(rows, "accuracy", 0.02)
    assert verdict.keep == 0.5
    assert verdict.sentence == (
        "w8a8: pruned the furthest at keep 0.5: it loses 0.0200 of accuracy (tolerated 0.02) at 0.50 of the latency "
        "and 0.50 of the size"
    )


def test_a_verdict_says_where_losses_do_not_rise_and_where_none_is_within() -> None:
    odd = [row(0.7, 0.1, within=False), row(0.5, 0.0, within=True)]
    none = [row(0.7, 0.1, within=False, number_format="w4"), row(0.5, 0.3, within=False, number_format="w4")]
    failed = [row(0.7, None, within=False, number_format="fp32")]
    found = verdicts([*odd, *none, *failed], "accuracy", 0.02)
    assert [verdict.keep for verdict in found] == [0.5, None, None]
    assert found[0].sentence.endswith("larger keeps lose more (0.7), so this may be chance")
    assert found[1].sentence == "w4: no keep loses at most 0.02 of accuracy; the nearest, 0.7, loses 0.1000"
    assert found[2].sentence == "fp32: no keep has a score"


def test_a_loss_equal_to_the_tolerated_one_is_tolerated() -> None:
    assert is_tolerated(0.92 - 0.90, 0.02)
    assert not is_tolerated(0.0201, 0.02)
