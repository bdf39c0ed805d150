"""What a table says of energy: coefficients that are stated, or power that was measured."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from evaluators.latency.table.base import StoredRecord
from search_spaces.formats import ActivationPrecision, Format

PositiveFloat = Annotated[float, Field(gt=0)]


class EnergyBasis(StrEnum):
    """How energies are known."""

    ESTIMATED = "estimated"
    """From coefficients of another device; right in their proportions at best."""
    MEASURED = "measured"
    """From a meter of the device itself."""


class Arithmetic(StrEnum):
    """Numbers that are multiplied."""

    FLOAT32 = "float32"
    """Single precision."""
    FLOAT16 = "float16"
    """Half precision or bfloat16."""
    FLOAT8 = "float8"
    """Floating-point numbers of 8 bits."""
    INT8 = "int8"
    """Codes of 8 bits, added up in 32."""

    @classmethod
    def of(cls, number_format: Format) -> "Arithmetic":
        """Return what the kernel of a format multiplies."""
        match number_format.activation:
            case ActivationPrecision.NONE:
                return cls.FLOAT32
            case ActivationPrecision.BFLOAT16 | ActivationPrecision.FLOAT16:
                return cls.FLOAT16
            case ActivationPrecision.FLOAT8_PER_ROW:
                return cls.FLOAT8
            case _:
                return cls.INT8


class EnergyCoefficients(StoredRecord):
    """Stated energy of single operations."""

    basis: Literal[EnergyBasis.ESTIMATED] = EnergyBasis.ESTIMATED
    """Always estimated."""
    source: str = Field(min_length=1)
    """Where the figures are from."""
    assumptions: tuple[str, ...] = Field(default=(), strict=False)
    """What the source does not state and is taken for granted."""
    multiply_add_pj: dict[Annotated[Arithmetic, Field(strict=False)], PositiveFloat]
    """Picojoule of a multiplication with its addition, by arithmetic; all kinds are named."""
    weight_byte_pj: float = Field(ge=0)
    """Picojoule of a byte of weights, read from memory once a call."""
    activation_byte_pj: float = Field(ge=0)
    """Picojoule of a byte of activations, read or written in a cache."""

    @model_validator(mode="after")
    def _names_all_kinds(self) -> Self:
        if missing := [kind.value for kind in Arithmetic if kind not in self.multiply_add_pj]:
            raise ValueError(f"multiply_add_pj names every arithmetic; it lacks {', '.join(missing)}")
        return self


class MeasuredPower(StoredRecord):
    """Power that the device took while operators ran; energy is time times power."""

    basis: Literal[EnergyBasis.MEASURED] = EnergyBasis.MEASURED
    """Always measured."""
    source: str = Field(min_length=1)
    """The meter ("RAPL package-0")."""
    watts: dict[Annotated[Arithmetic, Field(strict=False)], PositiveFloat]
    """Mean power while operators of an arithmetic ran, that of an idle device included; float32 is named."""

    @model_validator(mode="after")
    def _names_float32(self) -> Self:
        if Arithmetic.FLOAT32 not in self.watts:
            raise ValueError(f"watts names float32, which stands in for others; got {', '.join(self.watts)}")
        return self


TableEnergy = Annotated[EnergyCoefficients | MeasuredPower, Field(discriminator="basis")]

HOROWITZ = EnergyCoefficients(
    source="M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, figure 1.1.9: 45 nm, "
    "0.9 V",
    assumptions=(
        "a multiply-add is the sum of both: float32 3.7 + 0.9 pJ, float16 1.1 + 0.4 pJ, int8 0.2 pJ and 0.1 pJ for the "
        "addition in 32 bits",
        "float8 is not in the source and takes what float16 does",
        "weights are read once a call from DRAM, 1.3 to 2.6 nJ for 64 bits, of which the middle is taken; activations "
        "stay in a cache of 1 MB, 100 pJ for 64 bits",
        "neither instructions nor an idle device count; a device of today takes a fraction of these, so that ratios of "
        "two policies say more than either",
    ),
    multiply_add_pj={
        Arithmetic.FLOAT32: 4.6,
        Arithmetic.FLOAT16: 1.5,
        Arithmetic.FLOAT8: 1.5,
        Arithmetic.INT8: 0.3,
    },
    weight_byte_pj=244.0,
    activation_byte_pj=12.5,
)
"""Coefficients where a table has none."""
