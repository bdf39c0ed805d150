"""Energy of a call: what its operators compute and move, by a table's coefficients, or their time by measured power."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table.energy import HOROWITZ, Arithmetic, EnergyBasis, EnergyCoefficients, MeasuredPower
from evaluators.latency.workload import (
    Operator,
    OperatorKind,
    fixed_operators,
    fixed_parts,
    layer_operators,
    policy_operators,
    unit_operators,
)
from search_spaces.channels import ChannelUnit, CutLayer
from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Choice, Policy
from search_spaces.units import FixedPart, ModelStructure, Unit

_FLOAT_BYTES = 4
_MJ_PER_PJ = 1e-9
_TRAFFIC: dict[OperatorKind, tuple[int, int]] = {
    OperatorKind.QUANTIZE: (_FLOAT_BYTES, 1),
    OperatorKind.STATIC_QUANTIZE: (_FLOAT_BYTES, 1),
    OperatorKind.DEQUANTIZE: (1, _FLOAT_BYTES),
    OperatorKind.ACTIVATION: (_FLOAT_BYTES, _FLOAT_BYTES),
    OperatorKind.LAYER_NORM: (2 * _FLOAT_BYTES, _FLOAT_BYTES),
    OperatorKind.RMS_NORM: (2 * _FLOAT_BYTES, _FLOAT_BYTES),
    OperatorKind.HEAD_NORM: (_FLOAT_BYTES, _FLOAT_BYTES),
}
"""Bytes that are read and written for each number of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an operator does.

    Attributes:
        arithmetic: Numbers that it multiplies.
        multiply_adds: Multiplications, each with an addition.
        weight_bytes: Weights that it reads.
        activation_bytes: Activations that it reads and writes.
    """

    arithmetic: Arithmetic = Arithmetic.FLOAT32
    multiply_adds: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0


def work_of(operator: Operator) -> Work:
    """Count what an operator computes and moves; a function of a number counts as one multiply-add."""
    axes = dict(operator.axes)
    match operator.kind:
        case OperatorKind.LINEAR:
            return _product(operator, axes["tokens"], axes["in_features"], axes["out_features"], axes["in_features"])
        case OperatorKind.CONVOLUTION | OperatorKind.DEPTHWISE:
            return _convolution(operator, axes)
        case OperatorKind.ATTENTION_CORE:
            heads = axes["batch"] * axes["heads"] * axes["queries"]
            scores = heads * axes["sequence"] ** 2
            keys = axes["batch"] * axes["heads"] * axes["sequence"] * axes["head_dim"]
            queries = heads * axes["sequence"] * axes["head_dim"]
            # Scores are written and read by softmax and by the weighted sum of values; queries go in, their sums out.
            numbers = 2 * queries + 2 * keys + 4 * scores
            return Work(multiply_adds=2 * scores * axes["head_dim"], activation_bytes=_FLOAT_BYTES * numbers)
        case OperatorKind.EMBEDDING:
            numbers = axes["tokens"] * axes["features"]
            is_quantized = operator.format is not None and FORMATS.get(operator.format).is_quantized
            weight_bytes = numbers * (1 if is_quantized else _FLOAT_BYTES)
            return Work(weight_bytes=weight_bytes, activation_bytes=_FLOAT_BYTES * numbers)
        case OperatorKind.ROTARY:
            heads = axes["batch"] * axes["sequence"] * axes["heads"]
            # Each rotated number is a sum of two products; all go in and out.
            return Work(
                multiply_adds=2 * heads * axes["columns"], activation_bytes=2 * _FLOAT_BYTES * heads * axes["head_dim"]
            )
        case OperatorKind.POSITIONS:
            numbers = axes["batch"] * axes["sequence"] ** 2 + axes["sequence"] * axes["columns"]
            return Work(multiply_adds=numbers, activation_bytes=_FLOAT_BYTES * numbers)
        case OperatorKind.RESIDUAL_ADD:
            numbers = math.prod(axes.values())
            return Work(multiply_adds=numbers, activation_bytes=3 * numbers * _number_bytes(operator.format))
        case _:
            numbers = math.prod(axes.values())
            return Work(multiply_adds=numbers, activation_bytes=numbers * sum(_TRAFFIC[operator.kind]))


def _convolution(operator: Operator, axes: dict[str, int]) -> Work:
    outputs = axes["batch"] * axes["height"] * axes["width"]
    is_depthwise = operator.kind is OperatorKind.DEPTHWISE
    out_channels = axes["channels"] if is_depthwise else axes["out_channels"]
    columns = axes["kernel"] ** 2 * (1 if is_depthwise else axes["in_channels"])
    in_channels = out_channels if is_depthwise else axes["in_channels"]
    return _product(operator, outputs, columns, out_channels, in_channels * axes["stride"] ** 2)


def _product(operator: Operator, rows: int, columns: int, out_features: int, read_per_row: int) -> Work:
    assert operator.format is not None, operator
    number_format = FORMATS.get(operator.format)
    number_bytes = _number_bytes(operator.format)
    is_static = number_format.activation is ActivationPrecision.INT8_STATIC
    written = number_bytes if is_static or number_bytes == 2 else _FLOAT_BYTES
    return Work(
        arithmetic=Arithmetic.of(number_format),
        multiply_adds=rows * columns * out_features,
        weight_bytes=number_format.weight_bytes(out_features, columns) + _FLOAT_BYTES * out_features,
        activation_bytes=rows * (read_per_row * number_bytes + out_features * written),
    )


def _number_bytes(format_name: str | None) -> int:
    """Bytes of a number that a kernel reads."""
    if format_name is None:
        return _FLOAT_BYTES
    return {Arithmetic.FLOAT32: _FLOAT_BYTES, Arithmetic.FLOAT16: 2}.get(Arithmetic.of(FORMATS.get(format_name)), 1)


class EnergyPredictor:
    """Adds up what operators take.

    Args:
        latency: Times of operators, the workload, and what the table says of energy; `HOROWITZ` where that is nothing.
    """

    def __init__(self, latency: LatencyPredictor) -> None:
        self._latency = latency
        self._stated: EnergyCoefficients | MeasuredPower = latency.energy or HOROWITZ
        self._found: dict[Operator, float] = {}
        self._units: dict[tuple[Unit, tuple[Choice, ...]], float] = {}
        self._fixed: dict[tuple[str, tuple[FixedPart, ...]], float] = {}

    @property
    def basis(self) -> EnergyBasis:
        """Whether energies are measured or estimated."""
        return self._stated.basis

    @property
    def source(self) -> str:
        """Where the figures are from."""
        return self._stated.source

    def operator_mj(self, operator: Operator) -> float:
        """Return the energy of one operator in millijoule."""
        if operator not in self._found:
            self._found[operator] = self._operator_mj(operator)
        return self._found[operator]

    def unit_mj(self, unit: Unit, choice: Choice) -> float:
        """Return the energy of a unit that shares no layers."""
        key = (unit, (choice,))
        if key not in self._units:
            self._units[key] = self._sum(unit_operators(unit, choice, self._latency.workload).items())
        return self._units[key]

    def layer_mj(self, cut: CutLayer) -> float:
        """Return the energy of a layer between channels, with what its input's format costs."""
        return self._sum(layer_operators(cut, self._latency.workload).items())

    def fixed_mj(self, structure: ModelStructure, policy: Policy | None = None) -> float:
        """Return the energy of what lies outside units, as far as the policy reads it, and of the time that no operator
        explains.
        """
        key = (structure.base_format, fixed_parts(structure, policy))
        if key not in self._fixed:
            total = self._sum(fixed_operators(structure, self._latency.workload, policy).items())
            self._fixed[key] = total + self._overhead_mj()
        return self._fixed[key]

    def policy_mj(self, structure: ModelStructure, policy: Policy) -> float:
        """Return the energy of one call under a policy in millijoule.

        With measured power the times are those inside of the policy.
        """
        if isinstance(self._stated, MeasuredPower):
            inside = self._latency.for_policy(structure, policy)
            if inside is not self._latency:
                return EnergyPredictor(inside)._sum_mj(structure, policy)
        return self._sum_mj(structure, policy)

    def at(self, working_set: float) -> "EnergyPredictor":
        """Return a predictor inside of a policy with so many bytes of weights; see `LatencyPredictor.at`."""
        inside = self._latency.at(working_set)
        return self if inside is self._latency else EnergyPredictor(inside)

    def _sum_mj(self, structure: ModelStructure, policy: Policy) -> float:
        return self.fixed_mj(structure, policy) + sum(
            self._shared_mj(unit, policy, structure.base_format)
            if isinstance(unit, ChannelUnit)
            else self.unit_mj(unit, policy[unit.name])
            for unit in structure.units
        )

    def _shared_mj(self, unit: ChannelUnit, policy: Policy, base_format: str) -> float:
        key: tuple[Unit, tuple[Choice, ...]] = (unit, tuple(policy[name] for name in (unit.name, *unit.inputs)))
        if key not in self._units:
            counts = policy_operators(unit, policy, base_format, self._latency.workload)
            self._units[key] = self._sum(counts.items())
        return self._units[key]

    def _overhead_mj(self) -> float:
        correction, stated = self._latency.correction, self._stated
        if correction is None or not isinstance(stated, MeasuredPower):
            return 0.0
        return correction.overhead_ms * stated.watts[Arithmetic.FLOAT32]

    def _sum(self, counts: Iterable[tuple[Operator, int]]) -> float:
        return math.fsum(count * self.operator_mj(operator) for operator, count in counts)

    def _operator_mj(self, operator: Operator) -> float:
        work, stated = work_of(operator), self._stated
        if isinstance(stated, MeasuredPower):
            watts = stated.watts.get(work.arithmetic, stated.watts[Arithmetic.FLOAT32])
            # A watt for a millisecond is a millijoule.
            return self._latency.operators_ms([(operator, 1)]) * watts
        return _MJ_PER_PJ * (
            work.multiply_adds * stated.multiply_add_pj[work.arithmetic]
            + work.weight_bytes * stated.weight_byte_pj
            + work.activation_bytes * stated.activation_byte_pj
        )
