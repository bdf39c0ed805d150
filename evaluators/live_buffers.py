"""Which tensors live at each step of a call, as exported models compute: what peak memory is added up from.

Operators run in the model's order and write to new tensors, sums too. In float32 a bias is added in an operator of its
own, in other formats it is part of the product. A layer in a narrow format has a copy of its input in that format while
it runs, and so has its kernel.

Shape letters: B examples, S tokens of one, T = B * S, D width of the residual stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from evaluators.latency.workload import Workload
from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Choice
from search_spaces.units import FixedPart, ModelStructure, PartKind, Unit, UnitKind

FLOAT_BYTES = 4
_HALF = frozenset({ActivationPrecision.BFLOAT16, ActivationPrecision.FLOAT16, ActivationPrecision.FLOAT8_PER_ROW})
"""Layers whose outputs are numbers of two bytes."""
_COPY_BYTES = {ActivationPrecision.NONE: 0, ActivationPrecision.BFLOAT16: 2, ActivationPrecision.FLOAT16: 2}
"""Bytes of one number of the input's copy in the layer's format; elsewhere it is a code of one byte."""
_BLOCK_OVERHEAD_BYTES = 8
"""Scale and sum of a block of codes."""


class Layout(StrEnum):
    """Axes of a tensor; tensors of one layout and size have equal shapes."""

    ROWS = "rows"
    """A row for each token, or each example."""
    HEADS = "heads"
    """Heads before tokens: queries, values, weighted values."""
    KEYS = "keys"
    """Heads before tokens, as the keys are."""
    REPEATED = "repeated"
    """Keys or values once for each query head."""
    JOINED = "joined"
    """Tokens before heads."""
    SCORES = "scores"
    """A token for each token of each head."""
    MASK = "mask"
    """A token for each token of each example."""
    ENCODED = "encoded"
    """What an encoder returned."""
    CODES = "codes"
    """Codes of a layer's input."""


class Buffer(NamedTuple):
    """Memory of one tensor.

    Attributes:
        layout: Its axes.
        size_bytes: Its size.
    """

    layout: Layout
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """A point in a call.

    Attributes:
        live: Tensors that live, by shape.
        scratch_bytes: What the kernel needs for itself meanwhile.
    """

    live: Counter[Buffer] = field(default_factory=Counter)
    scratch_bytes: int = 0

    def beside(self, others: Counter[Buffer]) -> Step:
        """Return the step with other tensors that live meanwhile."""
        return Step(self.live + others, self.scratch_bytes)


class UnitSteps:
    """Steps of the parts of one model.

    Args:
        structure: Units and fixed parts; those that share layers have no steps here.
        workload: Batch and tokens of a call.
    """

    def __init__(self, structure: ModelStructure, workload: Workload) -> None:
        self._structure, self._workload = structure, workload
        self._width = max((unit.in_features for unit in structure.units), default=0)

    def unit(self, unit: Unit, choice: Choice) -> tuple[Step, ...]:
        """Return the steps of a unit, with the stream, without what lives beside it all the time."""
        stream = self._rows(unit.in_features)
        if unit.kind is UnitKind.EMBEDDING:
            return (Step(Counter({stream: 3 - self._structure.normalizes_first})),)
        if choice.keep == 0:
            return (Step(Counter({stream: 2})),)
        layers = _Layers(unit, choice, self._workload)
        middle = layers.attention() if unit.kind is UnitKind.ATTENTION else layers.feed_forward()
        # Where normalisation comes first, its output is a tensor beside the stream. A sum writes a third tensor.
        norm = Step(Counter({stream: 2}))
        return (norm, *_with(stream, middle, also=self._structure.normalizes_first), Step(Counter({stream: 3})))

    def before(self) -> tuple[Step, ...]:
        """Return the steps of fixed parts that run before all units."""
        kinds = (PartKind.EMBEDDING, PartKind.CONVOLUTION)
        parts = tuple(self._part(part) for part in self._structure.fixed if part.kind in kinds)
        return (*parts, Step(Counter({self._rows(self._width): 2}))) if parts else ()

    def behind(self) -> tuple[Step, ...]:
        """Return the steps of fixed parts that run behind all units."""
        kinds = (PartKind.LINEAR, PartKind.LAYER_NORM, PartKind.RMS_NORM)
        return tuple(self._part(part) for part in self._structure.fixed if part.kind in kinds)

    def _part(self, part: FixedPart) -> Step:
        batch, tokens = self._workload.batch, self._workload.tokens
        stream = self._rows(self._width)
        match part.kind:
            case PartKind.LINEAR:
                rows = tokens if part.per_token else batch
                read = Buffer(Layout.ROWS, FLOAT_BYTES * rows * part.width[0])
                return Step(Counter([stream, read, Buffer(Layout.ROWS, FLOAT_BYTES * rows * part.width[1])]))
            case PartKind.EMBEDDING:
                return Step(Counter({self._rows(part.width[1]): 2}))
            case PartKind.LAYER_NORM | PartKind.RMS_NORM:
                return Step(Counter({self._rows(part.width[0]): 2}))
            case PartKind.POSITIONS:
                return Step()
            case PartKind.CONVOLUTION:
                _, out_channels, kernel, image_size = part.width
                patches = FLOAT_BYTES * batch * out_channels * (image_size // kernel) ** 2
                return Step(scratch_bytes=2 * patches)

    def _rows(self, width: int) -> Buffer:
        return Buffer(Layout.ROWS, FLOAT_BYTES * self._workload.tokens * width)


class _Layers:
    """Steps between the normalisation of a unit and its sum, the stream apart."""

    def __init__(self, unit: Unit, choice: Choice, workload: Workload) -> None:
        self._unit, self._keep, self._workload = unit, choice.keep, workload
        self._format = FORMATS.get(choice.format)
        self._number_bytes = 2 if self._format.activation in _HALF else FLOAT_BYTES

    def attention(self) -> Iterator[Step]:
        """Projections, scores, softmax, weighted values, and heads side by side again."""
        unit, size = self._unit, self._number_bytes
        head_dim = min(producer.rows_per_group for producer in unit.producers)
        group = unit.columns_per_group // head_dim
        is_own = group == 1
        all_heads, own_heads = (self._workload.tokens * self._keep * n * head_dim * size for n in (group, 1))
        queries, keys = Buffer(Layout.HEADS, all_heads), Buffer(Layout.KEYS, own_heads)
        values, joined = Buffer(Layout.HEADS, own_heads), Buffer(Layout.JOINED, all_heads)
        repeated = Buffer(Layout.REPEATED, all_heads)
        spread = 1 if is_own else group
        length = self._workload.sequence_length
        scores = Buffer(Layout.SCORES, self._workload.batch * self._keep * spread * length**2 * size)
        seen_keys, seen_values = (keys, values) if is_own else (repeated, repeated)
        codes = self._input_codes()
        yield self._product(self._keep * head_dim, unit.in_features, codes)
        yield from self._rotated(keys, Counter(codes))
        if not is_own:
            yield Step(Counter([keys, repeated, *codes]))
        yield self._product(self._keep * group * head_dim, unit.in_features, [seen_keys, *codes])
        yield from self._rotated(queries, Counter([seen_keys, *codes]))
        yield Step(Counter([seen_keys, queries, scores, *codes]))
        yield Step(Counter([scores, scores, *codes]))
        yield self._product(self._keep * head_dim, unit.in_features, [scores, *codes])
        yield Step(Counter([scores, values, self._rows(self._keep * head_dim), *([] if is_own else [repeated])]))
        yield Step(Counter([scores, seen_values, queries]))
        yield Step(Counter([queries, joined]))
        yield self._product(unit.out_features, self._keep * unit.columns_per_group, [joined])

    def feed_forward(self) -> Iterator[Step]:
        """Producers, the activation, and the consumer."""
        unit = self._unit
        hidden = self._rows(self._keep)
        codes = self._input_codes()
        if not unit.is_gated:
            yield self._product(self._keep, unit.in_features, codes, fuses_bias=True)
            # The kernel of GELU with a bias keeps the sum of both.
            adds = unit.activation == "gelu" and self._format.activation is not ActivationPrecision.INT8_PER_TENSOR
            yield Step(Counter({hidden: 2}), scratch_bytes=hidden.size_bytes * adds)
        elif len(unit.producers) == 1:
            both = self._rows(2 * self._keep)
            yield self._product(2 * self._keep, unit.in_features, codes)
            yield Step(Counter({both: 1, hidden: 2}))
            yield Step(Counter({hidden: 3}))
        else:
            yield self._product(self._keep, unit.in_features, codes)
            yield Step(Counter({hidden: 2}))
            yield self._product(self._keep, unit.in_features, [hidden, *codes])
            yield Step(Counter({hidden: 3}))
        yield self._product(unit.out_features, self._keep * unit.columns_per_group, [hidden])

    def _product(
        self, out_features: int, in_features: int, beside: Iterable[Buffer], *, fuses_bias: bool = False
    ) -> Step:
        """A linear layer beside tensors that live on."""
        adds = self._format.activation is ActivationPrecision.NONE and not fuses_bias
        live = Counter(beside)
        live[self._rows(out_features)] += 2 if adds else 1
        return Step(live, self._scratch_bytes(in_features))

    def _rotated(self, heads: Buffer, beside: Counter[Buffer]) -> Iterator[Step]:
        """Heads moved before tokens, then the positions rotated into them."""
        rows = Buffer(Layout.ROWS, heads.size_bytes)
        yield Step(beside + Counter([heads, rows]))
        if self._unit.normalizes_heads:
            joined = Buffer(Layout.JOINED, heads.size_bytes)
            yield Step(beside + Counter([rows, joined]))
            yield Step(beside + Counter([joined, heads]))
        if self._unit.rotation is not None:
            yield Step(beside + Counter({heads: 2}))

    def _input_codes(self) -> list[Buffer]:
        """Codes that the producers of attention share; each of other layers makes its own."""
        shares = self._format.activation is ActivationPrecision.INT8_PER_TENSOR and len(self._unit.producers) > 1
        return [Buffer(Layout.CODES, self._workload.tokens * self._unit.in_features)] if shares else []

    def _scratch_bytes(self, in_features: int) -> int:
        """The input's copy in the format, with its scales."""
        tokens, group = self._workload.tokens, self._format.group_size
        copied = tokens * in_features * _COPY_BYTES.get(self._format.activation, 1)
        if self._format.activation is ActivationPrecision.INT8_PER_BLOCK and group is not None:
            return copied + tokens * -(-in_features // group) * _BLOCK_OVERHEAD_BYTES
        return copied

    def _rows(self, width: int) -> Buffer:
        return Buffer(Layout.ROWS, self._number_bytes * self._workload.tokens * width)


def _with(stream: Buffer, steps: Iterable[Step], *, also: bool) -> Iterator[Step]:
    """Steps of a branch beside the stream; its normalised input lives as long as producers may read it."""
    found = list(steps)
    for number, step in enumerate(found):
        reads = also and number < len(found) - 2
        yield step.beside(Counter({stream: 1 + reads}))
