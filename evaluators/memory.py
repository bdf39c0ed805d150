"""Peak activation memory of a call, computed from a policy: the most bytes of tensors that are held at one time.

Weights are not part of it (they are the size), nor are the inputs of the call, which are the caller's. Which tensors
live when is told by `evaluators.live_buffers`; how a runtime holds them, by `MemoryPlan`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from evaluators.latency.workload import Workload
from evaluators.live_buffers import FLOAT_BYTES, Buffer, Layout, Step, UnitSteps
from evaluators.map_memory import MapMemory
from search_spaces.channels import ChannelUnit
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace
from search_spaces.units import ModelStructure, Unit


class MemoryPlan(StrEnum):
    """How a runtime holds tensors."""

    REUSED = "reused"
    """A buffer serves tensors of one shape after another, from the first to the last that needs it, as ONNX Runtime
    plans it: what a model needs grows with the number of its shapes."""
    FREED = "freed"
    """A tensor is freed behind its last reader, as torch does."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps that follow each other, told by the buffers that they hold.

    Attributes:
        spans: The first and the last step that holds so many buffers of a shape, counted from the stretch's first.
        scratch_bytes: What each step needs beside buffers.
        most_bytes: The most that one of the steps holds.
    """

    spans: tuple[tuple[tuple[Buffer, int], int, int], ...]
    scratch_bytes: tuple[int, ...]
    most_bytes: int

    @classmethod
    def of(cls, steps: Sequence[Step]) -> "Stretch":
        """Read the steps."""
        spans: dict[tuple[Buffer, int], tuple[int, int]] = {}
        for time, step in enumerate(steps):
            for buffer, count in step.live.items():
                for place in range(count):
                    spans[buffer, place] = (spans.get((buffer, place), (time, time))[0], time)
        held = (sum(buffer.size_bytes * n for buffer, n in step.live.items()) + step.scratch_bytes for step in steps)
        found = tuple((key, first, last) for key, (first, last) in spans.items())
        return cls(found, tuple(step.scratch_bytes for step in steps), max(held, default=0))


class PeakMemory:
    """Peak activation memory of every policy of a model.

    Args:
        structure: Units and fixed parts.
        workload: Batch and tokens of a call.
        plan: How the runtime holds tensors.
    """

    def __init__(self, structure: ModelStructure, workload: Workload, plan: MemoryPlan = MemoryPlan.REUSED) -> None:
        self._structure, self._workload, self._plan = structure, workload, plan
        self._maps = MapMemory(structure, workload.batch, blocked=plan is MemoryPlan.REUSED)
        self._steps = UnitSteps(structure, workload)
        self._before, self._behind = Stretch.of(self._steps.before()), Stretch.of(self._steps.behind())
        self._beside = self._beside_units()
        self._units = [unit for unit in structure.units if not isinstance(unit, ChannelUnit)]
        self._known: dict[tuple[str, Choice], Stretch] = {}

    def policy_bytes(self, policy: Policy) -> int:
        """Return the peak of a policy in bytes."""
        own = [self._stretch(unit, policy[unit.name]) for unit in self._units]
        return max(peak_bytes([self._before, *own, self._behind], self._plan), self._maps.policy_bytes(policy))

    def least_bytes(self, space: SearchSpace) -> int:
        """Return a peak that no policy of the space goes below: what its parts need at least, each by itself."""
        own = (
            min(self._stretch(unit, choice).most_bytes for choice in space.choices(unit.name)) for unit in self._units
        )
        return max(self._before.most_bytes, self._behind.most_bytes, *own, 0)

    def _stretch(self, unit: Unit, choice: Choice) -> Stretch:
        key = (unit.name, choice)
        if key not in self._known:
            # What is left of a branch that is left out reads nothing but the stream.
            beside = self._beside[unit.name] if choice.keep else Counter[Buffer]()
            self._known[key] = Stretch.of([step.beside(beside) for step in self._steps.unit(unit, choice)])
        return self._known[key]

    def _beside_units(self) -> dict[str, Counter[Buffer]]:
        """Tensors that live all the time while a unit runs: the mask or position bias, and what an encoder returned."""
        stacks: dict[int | None, list[Unit]] = defaultdict(list)
        for unit in self._structure.units:
            stacks[self._structure.stack_of(unit)].append(unit)
        found = {}
        for units in stacks.values():
            # A position bias has a plane for each head, a mask one for all.
            planes = max((unit.groups for unit in units if unit.selection is not None), default=1)
            mask = FLOAT_BYTES * self._workload.batch * planes * self._workload.sequence_length**2
            crosses = any(producer.input_index for unit in units for producer in unit.producers)
            for unit in units:
                encoded = FLOAT_BYTES * self._workload.tokens * unit.in_features
                live = [Buffer(Layout.MASK, mask), *[Buffer(Layout.ENCODED, encoded)] * crosses]
                found[unit.name] = Counter(live)
        return found


def peak_bytes(stretches: Sequence[Stretch], plan: MemoryPlan) -> int:
    """Return the largest number of bytes that stretches of steps, one after the other, hold at one time.

    Args:
        stretches: The steps of a call in their order.
        plan: How the runtime holds tensors.
    """
    if plan is MemoryPlan.FREED:
        return max((stretch.most_bytes for stretch in stretches), default=0)
    first_by_key: dict[tuple[Buffer, int], int] = {}
    last_by_key: dict[tuple[Buffer, int], int] = {}
    scratch: list[int] = []
    for stretch in stretches:
        start = len(scratch)
        for key, first, last in stretch.spans:
            first_by_key.setdefault(key, start + first)
            last_by_key[key] = start + last
        scratch += stretch.scratch_bytes
    change = [0] * (len(scratch) + 1)
    for key, last in last_by_key.items():
        change[first_by_key[key]] += key[0].size_bytes
        change[last + 1] -= key[0].size_bytes
    return max((held + own for held, own in zip(accumulate(change), scratch, strict=False)), default=0)
