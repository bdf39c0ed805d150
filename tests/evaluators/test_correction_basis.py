"""For which models, spaces and rows a table's correction holds."""

import json
from dataclasses import replace

import jsonschema
import pytest

from evaluators.latency.correction import Correction
from evaluators.latency.identity import model_name
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.shipped import PREFIX, shipped_names, table_file
from evaluators.latency.standing import still_holds
from evaluators.latency.table import (
    CorrectionBasis,
    Entry,
    Fingerprint,
    LatencyTable,
    Provenance,
    TableError,
    load_table,
    parse_table,
    table_schema,
)
from evaluators.latency.table.basis import operator_of
from evaluators.latency.workload import AXIS_NAMES, Operator, OperatorKind, Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from search_spaces.units import Branch, FixedPart, ModelStructure, PartKind, Producer, Rotation, Unit, UnitKind

WORKLOAD = Workload(batch=1, sequence_length=8)
OTHER = Workload(batch=1, sequence_length=16)
HERE = Fingerprint(device="x", runtime="onnxruntime", runtime_version="1", threads=1, os="Linux")
FIT = Correction(scale=1.5, overhead_ms=0.2, models=5, median_error_pct=1.5, max_error_pct=3.0)


def structure_of(hidden: int = 16, *, name: str = "f", labels: int = 2, units: int = 1) -> ModelStructure:
    def unit(number: int) -> Unit:
        return Unit(
            name=f"{name}{number}",
            kind=UnitKind.FEED_FORWARD,
            groups=64,
            producers=(Producer(layer=f"{name}{number}.up", rows_per_group=1),),
            consumer=f"{name}{number}.down",
            columns_per_group=1,
            in_features=hidden,
            out_features=hidden,
            branch=Branch(module=f"{name}{number}"),
            activation="gelu",
        )

    head = FixedPart(kind=PartKind.LINEAR, width=(hidden, labels), per_token=False)
    return ModelStructure(architecture="bert", units=tuple(map(unit, range(units))), fixed=(head,), fixed_bytes=0)


def space_of(structure: ModelStructure, *formats: str, keep: tuple[float, ...] = (1.0, 0.5)) -> SearchSpace:
    config = SpaceConfig(keep=keep, formats=formats or ("fp32", "w8a8"))
    return build_space(structure, config, target_formats=("fp32", "w8a8", "w4"), channel_multiple=8)


def row(operator: Operator, median_ms: float = 1.0) -> Entry:
    return Entry.of(operator, median_ms, spread_ms=0.1, repeats=3, working_set_bytes=0)


def table_of(*entries: Entry) -> LatencyTable:
    return LatencyTable(
        target="t", fingerprint=HERE, provenance=Provenance(measured_at="2026-01-01"), entries=tuple(entries)
    )


def gelu(features: int, tokens: int = 8) -> Operator:
    return Operator.of(OperatorKind.ACTIVATION, function="gelu", tokens=tokens, features=features)


def basis_of(times_ms: dict[Operator, float], space: SearchSpace | None = None) -> CorrectionBasis:
    return CorrectionBasis.of(space or space_of(structure_of()), times_ms, wanted=12)


def test_models_that_do_the_same_work_have_one_name_whatever_their_head_and_their_words() -> None:
    name = model_name(structure_of())
    assert name.startswith("bert-")
    assert model_name(structure_of(name="encoder.layer.", labels=7)) == name
    others = (structure_of(hidden=32), structure_of(units=2), replace(structure_of(), architecture="vit"))
    assert len({name, *map(model_name, others)}) == 4


@pytest.mark.parametrize("kind", OperatorKind)
def test_every_operator_of_a_model_can_be_read_from_its_text(kind: OperatorKind) -> None:
    plain = Operator.of(kind, **{axis: n for n, axis in enumerate(AXIS_NAMES[kind], 1)})
    functions = (OperatorKind.ACTIVATION, OperatorKind.ATTENTION_CORE, OperatorKind.ROTARY)
    named = replace(plain, **{"function" if kind in functions else "format": "gated_x"})
    assert [operator_of(str(operator)) for operator in (plain, named)] == [plain, named]


def test_the_operators_of_a_rotated_gated_decoder_are_read_from_their_text() -> None:
    structure = structure_of()
    attention = Unit(
        name="a",
        kind=UnitKind.ATTENTION,
        groups=2,
        producers=tuple(Producer(layer=x, rows_per_group=8, bias=False) for x in "qkv"),
        consumer="o",
        columns_per_group=8,
        in_features=16,
        out_features=16,
        rotation=Rotation(columns=4),
        normalizes_heads=True,
        causal=True,
    )
    structure = replace(structure, units=(attention, *structure.units))
    policy = Policy({unit.name: Choice(unit.groups, "w8a8") for unit in structure.units})
    found = operators(structure, policy, WORKLOAD)
    assert {operator_of(str(operator)) for operator in found} == set(found)


@pytest.mark.parametrize(
    "text", ["", "gelu", "quantize features=8", "quantize features=x tokens=4", "quantize tokens=4 features=8"]
)
def test_a_basis_of_something_else_than_operators_is_refused(text: str) -> None:
    content = json.loads(table_of(row(gelu(8))).with_correction(WORKLOAD, FIT, basis_of({gelu(8): 1.0})).to_json())
    content["corrections"][0]["basis"]["times_ms"] = {text: 1.0}
    with pytest.raises(TableError, match="an operator is written as its kind"):
        parse_table(json.dumps(content))


def test_a_correction_with_its_basis_round_trips_and_fits_the_schema() -> None:
    written = table_of(row(gelu(8))).with_correction(WORKLOAD, FIT, basis_of({gelu(8): 1.0}))
    assert parse_table(written.to_json()) == written
    jsonschema.validate(json.loads(written.to_json()), table_schema())


def test_a_table_without_bases_keeps_its_text_and_its_checksum() -> None:
    written = table_of(row(gelu(8))).with_correction(WORKLOAD, FIT)
    assert "basis" not in written.to_json()
    assert written.checksum == "95bf8679a67cb48f3433a5641b84197385d14683efd49aca0fd459806c8808a3"


@pytest.mark.parametrize("name", shipped_names())
def test_writing_a_shipped_table_neither_drops_nor_invents_bases(name: str) -> None:
    # One of them is older than bases and has none.
    file = table_file(f"{PREFIX}{name}")
    table = load_table(file)
    assert parse_table(table.to_json()) == table
    assert ('"basis"' in table.to_json()) == ('"basis"' in file.read_text(encoding="utf-8"))


def test_a_correction_is_applied_to_the_models_that_it_was_fitted_on() -> None:
    mine, other = structure_of(), structure_of(hidden=32)
    policy = Policy({"f0": Choice(64, "fp32")})
    rows = [row(o) for o in {*operators(mine, policy, WORKLOAD), *operators(other, policy, WORKLOAD)}]
    times_ms = {entry.operator: entry.median_ms for entry in rows}
    table = table_of(*rows).with_correction(WORKLOAD, FIT, basis_of(times_ms, space_of(mine)))
    assert LatencyPredictor(table, WORKLOAD, structure=mine).predict(mine, policy).corrected
    assert not LatencyPredictor(table, WORKLOAD, structure=other).predict(other, policy).corrected
    assert LatencyPredictor(table, OTHER, structure=mine).correction is None
    assert LatencyPredictor(table, WORKLOAD).correction == FIT
    both = table.with_correction(WORKLOAD, FIT.model_copy(update={"scale": 3.0}), basis_of(times_ms, space_of(other)))
    assert len(both.corrections) == 2
    assert both.correction(WORKLOAD, mine) == FIT
    assert both.correction(WORKLOAD, other).scale == 3.0
    assert both.correction(WORKLOAD) is None


def test_a_correction_that_names_no_model_is_taken_for_any_until_one_is_fitted() -> None:
    table = table_of(row(gelu(8))).with_correction(WORKLOAD, FIT)
    assert table.correction(WORKLOAD, structure_of()) == FIT
    fitted = table.with_correction(WORKLOAD, FIT.model_copy(update={"scale": 2.0}), basis_of({gelu(8): 1.0}))
    assert [correction.fit.scale for correction in fitted.corrections] == [2.0]


def test_two_corrections_of_one_workload_and_model_are_refused() -> None:
    table = table_of(row(gelu(8))).with_correction(WORKLOAD, FIT, basis_of({gelu(8): 1.0}))
    content = json.loads(table.to_json())
    content["corrections"] *= 2
    with pytest.raises(TableError, match="a workload and a model have one correction"):
        parse_table(json.dumps(content))


def test_a_correction_holds_while_its_operators_keep_their_times() -> None:
    before = (row(gelu(8)), row(gelu(32), 4.0))
    table = table_of(*before).with_correction(WORKLOAD, FIT, basis_of({gelu(8): 1.0, gelu(16): 2.0}))
    (stored,) = table.corrections
    assert still_holds(stored, before, before)
    assert still_holds(stored, before, (*before, row(gelu(64)), row(gelu(16, tokens=16))))
    assert still_holds(stored, before, (*before, row(gelu(16), 2.0)))
    assert not still_holds(stored, before, (*before, row(gelu(16), 2.5)))
    assert not still_holds(stored, before, (row(gelu(8), 1.1), before[1]))
    assert not still_holds(stored, before, before[:1])


def test_one_that_does_not_say_on_what_holds_while_no_row_comes_between_its_own() -> None:
    before = (row(gelu(8)), row(gelu(32), 4.0), row(gelu(8, 32)), row(gelu(32, 32)))
    (stored,) = table_of(*before).with_correction(WORKLOAD, FIT).corrections
    assert still_holds(stored, before, (*before, row(gelu(64))))
    # Tokens of another workload.
    assert still_holds(stored, before, (*before, row(gelu(16, tokens=16))))
    assert not still_holds(stored, before, (*before, row(gelu(16), 2.0)))
    assert not still_holds(stored, before, (row(gelu(8), 1.1), *before[1:]))


def test_a_space_that_reaches_beyond_the_fitted_one_is_named() -> None:
    structure = structure_of()
    basis = basis_of({gelu(8): 1.0}, space_of(structure))
    assert basis.lacks(space_of(structure)) == ()
    assert basis.lacks(space_of(structure, "w8a8")) == ()
    assert basis.lacks(space_of(structure, "fp32", "w8a8", "w4")) == ("feed_forward w4 (32 to 64 groups)",)
    smaller = basis.lacks(space_of(structure, "w8a8", keep=(1.0, 0.25)))
    assert smaller == ("feed_forward w8a8 (16 to 64 groups)",)
