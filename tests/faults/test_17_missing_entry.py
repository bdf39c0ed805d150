"""Row 17: an operator that the table lacks is an error with the command that measures it, never zero."""

import pytest
from tiny_tables import feed_forward, table_of

from evaluators.costs import CostModel
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.table import LatencyTable
from evaluators.latency.workload import Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure

WORKLOAD = Workload(batch=1, sequence_length=8)
UNIT = feed_forward()
STRUCTURE = ModelStructure(architecture="x", units=(UNIT,), fixed=(), fixed_bytes=0)
DENSE = Policy({"f": Choice(64, "fp32")})


def table_without(number: int) -> LatencyTable:
    """All operators of the dense model but one."""
    needed = sorted(operators(STRUCTURE, DENSE, WORKLOAD), key=str)
    return table_of(dict.fromkeys((*needed[:number], *needed[number + 1 :]), 1.0))


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (0, "activation gelu features=64 tokens=8"),
        (1, "linear fp32 in_features=16 out_features=64 tokens=8"),
        (2, "linear fp32 in_features=64 out_features=16 tokens=8"),
    ],
)
def test_the_operator_and_the_command_are_named(number, named):
    predictor = LatencyPredictor(table_without(number), WORKLOAD)
    command = (
        "measure with: paretrim profile --model MODEL --target cpu-onnxruntime "
        "--batch 1 --sequence-length 8 --threads 2 --out TABLE.json"
    )
    with pytest.raises(MissingEntryError, match=f"^the table lacks {named}.*; {command}"):
        predictor.policy_ms(STRUCTURE, DENSE)
    with pytest.raises(MissingEntryError, match=named):
        CostModel(STRUCTURE, predictor).costs(DENSE)


def test_a_command_can_be_given():
    predictor = LatencyPredictor(table_without(0), WORKLOAD, profile_command="paretrim profile --model m --out t.json")
    with pytest.raises(MissingEntryError, match=r"measure with: paretrim profile --model m --out t\.json$"):
        predictor.policy_ms(STRUCTURE, DENSE)


def test_another_format_or_workload_is_missing_too():
    predictor = LatencyPredictor(table_without(3), WORKLOAD)
    assert predictor.policy_ms(STRUCTURE, DENSE) == pytest.approx(3.0)
    with pytest.raises(MissingEntryError, match="linear w4"):
        predictor.policy_ms(STRUCTURE, Policy({"f": Choice(64, "w4")}))
    with pytest.raises(MissingEntryError, match="tokens=16"):
        LatencyPredictor(table_without(3), Workload(batch=2, sequence_length=8)).policy_ms(STRUCTURE, DENSE)


def test_a_failed_lookup_is_not_remembered_as_a_time():
    predictor = LatencyPredictor(table_without(0), WORKLOAD)
    for _ in range(2):
        with pytest.raises(MissingEntryError, match="the table lacks"):
            predictor.unit_ms(UNIT, Choice(64, "fp32"))


def test_more_tokens_than_were_measured_names_the_range_and_the_command():
    measured = [operators(STRUCTURE, DENSE, Workload(batch=1, sequence_length=n)) for n in (32, 512)]
    table = table_without(3)
    rows = tuple(
        table.entries[0].model_copy(
            update={"kind": o.kind, "format": o.format, "function": o.function, "axes": dict(o.axes)}
        )
        for counts in measured
        for o in counts
    )
    predictor = LatencyPredictor(table.model_copy(update={"entries": rows}), Workload(batch=1, sequence_length=4096))
    with pytest.raises(
        MissingEntryError,
        match=r"^the table lacks linear fp32 .*tokens=4096.* \(linear fp32 was measured for 32 to 512 tokens\); "
        r"a policy has a latency only .*; --extrapolate \(target.allow_extrapolation\) goes on beyond the table, "
        r"for planning; measure with: paretrim profile .*--sequence-length 4096",
    ):
        predictor.policy_ms(STRUCTURE, DENSE)
    between = LatencyPredictor(table.model_copy(update={"entries": rows}), Workload(batch=1, sequence_length=100))
    assert between.policy_ms(STRUCTURE, DENSE) == pytest.approx(3.0)
    assert not between.predict(STRUCTURE, DENSE).extrapolated


def test_one_measured_size_is_no_line_to_go_on_from():
    predictor = LatencyPredictor(table_without(3), Workload(batch=1, sequence_length=4096), allow_extrapolation=True)
    with pytest.raises(
        MissingEntryError,
        match=r"^the table lacks .* was measured for \d+ tokens\); .*; a line goes on beyond the table where it has "
        r"two sizes there, and here it has one; measure with",
    ):
        predictor.policy_ms(STRUCTURE, DENSE)


def test_extrapolation_has_to_be_asked_for_and_is_said():
    table = table_without(3)
    rows = tuple(
        entry.model_copy(update={"axes": {**entry.axes, "tokens": tokens}, "median_ms": float(tokens)})
        for entry in table.entries
        for tokens in (8, 16)
    )
    workload = Workload(batch=1, sequence_length=32)
    predictor = LatencyPredictor(table.model_copy(update={"entries": rows}), workload, allow_extrapolation=True)
    found = predictor.predict(STRUCTURE, DENSE)
    assert found.extrapolated
    assert found.latency_ms == pytest.approx(3 * 32)
    assert len(predictor.extrapolated(operators(STRUCTURE, DENSE, workload))) == 3
    with pytest.raises(MissingEntryError, match="linear w4"):
        predictor.policy_ms(STRUCTURE, Policy({"f": Choice(64, "w4")}))
