from evaluators.size import size_bytes, unit_bytes
from search_spaces.policy import Choice, Policy
from search_spaces.units import Branch, ModelStructure, Producer, Unit, UnitKind

UNIT = Unit(
    name="f",
    kind=UnitKind.FEED_FORWARD,
    groups=256,
    producers=(Producer(layer="up", rows_per_group=1),),
    consumer="down",
    columns_per_group=1,
    in_features=64,
    out_features=64,
    branch=Branch(module="f"),
    activation="gelu",
)


def test_float_weights_take_four_bytes() -> None:
    assert unit_bytes(UNIT, Choice(100, "fp32")) == 4 * (100 * 64 + 100 + 64 * 100 + 64)


def test_int8_weights_take_a_byte_and_a_scale_for_each_row() -> None:
    up, down = 100 * 64 + 4 * 100 + 4 * 100, 64 * 100 + 4 * 64 + 4 * 64
    assert unit_bytes(UNIT, Choice(100, "w8a8")) == up + down


def test_blocks_are_padded_and_zero_points_packed() -> None:
    # up: 2 blocks of 32 for each of 100 rows; down: 100 columns fill 4 blocks of 32 for each of 64 rows.
    up = 100 * 2 * 16 + 100 * 2 * 4 + 100 * 1 + 4 * 100
    down = 64 * 4 * 16 + 64 * 4 * 4 + 64 * 2 + 4 * 64
    assert unit_bytes(UNIT, Choice(100, "w4")) == up + down


def test_a_unit_left_out_keeps_its_constant() -> None:
    assert unit_bytes(UNIT, Choice(0, "fp32")) == 4 * 64


def test_a_model_adds_what_lies_outside_units() -> None:
    structure = ModelStructure(architecture="x", units=(UNIT,), fixed=(), fixed_bytes=1000)
    assert size_bytes(structure, Policy({"f": Choice(0, "fp32")})) == 1000 + 256
