"""A forward pass that starts at the first block whose result is not known from an earlier policy.

Policies that agree on all units up to some block give the same hidden states behind it. The outputs of blocks are kept
by stacked call, under the choices that they depend on, and the blocks whose outputs are known are not run: the rest of
the model's own forward pass is as it would have been, and so are its results, bit for bit.

Kept are outputs under the last policy, under the dense one, from which units are probed one by one, and as many earlier
policies as there is memory for. Where not even the first two fit, every second boundary is let go, as often as needed,
so that those that stay lie evenly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.channels import ChannelUnit
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, Unit

PREFIX_BYTES = 2**30
"""Outputs of blocks that are kept take at most so much memory, unless said otherwise."""

Inputs = Mapping[str, Tensor]


@dataclass(slots=True, kw_only=True)
class _Boundary:
    """Outputs of one block under one choice of all units that they depend on.

    Attributes:
        block: Number of the block.
        dense: Whether all of these choices are the dense ones.
        outputs: By identity of a call's inputs.
        size_bytes: Of all outputs.
    """

    block: int
    dense: bool
    outputs: dict[int, Any] = field(default_factory=dict)
    size_bytes: int = 0


class PrefixCache:
    """Runs a model whose units are swapped between passes, without the blocks that earlier passes ran alike.

    Args:
        model: The model that policies are assembled in.
        structure: Its units and stacks of blocks; without stacks every pass runs whole.
        calls: Calls that come again and again; others run whole. Their inputs are held on to.
        budget_bytes: Memory for outputs; 0 turns the cache off.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: ModelStructure,
        calls: Sequence[StackedCalls],
        *,
        budget_bytes: int = PREFIX_BYTES,
    ) -> None:
        self._budget_bytes = budget_bytes
        self._inputs = {id(call.inputs): call.inputs for call in calls}
        self._blocks = [model.get_submodule(name) for stack in structure.stacks for name in stack]
        lengths = [len(stack) for stack in structure.stacks]
        self._ends = [sum(lengths[: n + 1]) - 1 for n in range(len(lengths))]
        self._depends = list(_dependencies(structure))
        self._dense = {unit.name: Choice(unit.groups, structure.base_format) for unit in structure.units}
        self._stride = 1
        self._kept: OrderedDict[tuple[int, tuple[Choice, ...]], _Boundary] = OrderedDict()
        self._current: dict[int, _Boundary] = {}
        self.size_bytes = 0
        """Memory that outputs take now."""
        self.blocks_run = 0
        """Blocks that passes over the calls ran."""
        self.blocks_skipped = 0
        """Blocks that they did not have to run."""

    def use(self, policy: Policy | None) -> None:
        """Say which policy the model is assembled to; None where that is not known, so that passes run whole."""
        self._current = {}
        if policy is None or not self._budget_bytes:
            return
        for block in self._boundaries():
            choices = tuple(policy[name] for name in self._depends[block])
            key = (block, choices)
            if key in self._kept:
                self._kept.move_to_end(key)
            else:
                dense = choices == tuple(self._dense[name] for name in self._depends[block])
                self._kept[key] = _Boundary(block=block, dense=dense)
            self._current[block] = self._kept[key]

    def run(self, inputs: Inputs, forward: Callable[[], Tensor]) -> Tensor:
        """Run the model, or what is left to run of it.

        Args:
            inputs: The mapping that is one of the calls' inputs.
            forward: Runs the model on them.
        """
        call = id(inputs)
        if call not in self._inputs or not self._current:
            return forward()
        try:
            return self._run(call, forward)
        except (MemoryError, torch.OutOfMemoryError):
            if not self.size_bytes:
                raise
        self.forget()
        return forward()

    def forget(self) -> None:
        """Let go of all outputs."""
        self._kept.clear()
        self._current = {}
        self.size_bytes = 0

    def _run(self, call: int, forward: Callable[[], Tensor]) -> Tensor:
        known = self._longest(call)
        with ExitStack() as stack:
            for block in range(known + 1):
                end = min(known, next(end for end in self._ends if end >= block))
                _replace_forward(stack, self._blocks[block], self._current[end].outputs[call])
            for block, boundary in self._current.items():
                if block > known and call not in boundary.outputs:
                    hook = self._blocks[block].register_forward_hook(partial(self._record, boundary, call))
                    stack.callback(hook.remove)
            result = forward()
        self.blocks_skipped += known + 1
        self.blocks_run += len(self._blocks) - known - 1
        return result

    def _longest(self, call: int) -> int:
        """The last block whose output is known, and that of every stack before its own; -1 for none."""
        for block in sorted(self._current, reverse=True):
            needed = [end for end in self._ends if end < block] + [block]
            if all(call in self._current[n].outputs for n in needed):
                return block
        return -1

    def _boundaries(self) -> Iterator[int]:
        """Blocks whose outputs are kept: the last one's are not, as no pass could start behind it."""
        ends = set(self._ends)
        return (n for n in range(len(self._blocks) - 1) if n in ends or (n + 1) % self._stride == 0)

    def _record(self, boundary: _Boundary, call: int, _module: nn.Module, _inputs: object, output: object) -> None:
        if not _is_plain(output):
            self._turn_off()
            return
        if self._current.get(boundary.block) is not boundary:
            return
        boundary.outputs[call] = kept = _own(output)
        size = _size_bytes(kept)
        boundary.size_bytes += size
        self.size_bytes += size
        while self.size_bytes > self._budget_bytes:
            self._make_room()

    def _make_room(self) -> None:
        current = {id(boundary) for boundary in self._current.values()}
        for key, boundary in self._kept.items():
            if not boundary.dense and id(boundary) not in current and boundary.outputs:
                self._drop(key)
                return
        self._stride *= 2
        if self._stride > len(self._blocks):
            self._turn_off()
            return
        stay = set(self._boundaries())
        for key in [key for key in self._kept if key[0] not in stay]:
            self._drop(key)

    def _drop(self, key: tuple[int, tuple[Choice, ...]]) -> None:
        boundary = self._kept.pop(key)
        self.size_bytes -= boundary.size_bytes
        if self._current.get(boundary.block) is boundary:
            del self._current[boundary.block]

    def _turn_off(self) -> None:
        self._budget_bytes = 0
        self.forget()


def _dependencies(structure: ModelStructure) -> Iterator[tuple[str, ...]]:
    """For each block the units that its output depends on, in the model's order."""
    blocks = [name for stack in structure.stacks for name in stack]
    first: dict[str, int] = {}
    for unit in structure.units:
        for owner, module in _touched(unit):
            for number, name in enumerate(blocks):
                if module == name or module.startswith(name + "."):
                    first[owner] = min(first.get(owner, number), number)
    # A unit outside of all blocks may come before them.
    for block in range(len(blocks)):
        yield tuple(unit.name for unit in structure.units if first.get(unit.name, 0) <= block)


def _touched(unit: Unit) -> Iterator[tuple[str, str]]:
    """Pairs of a unit and a module that its choice changes."""
    if not isinstance(unit, ChannelUnit):
        yield from ((unit.name, layer) for layer in unit.layers)
        return
    for layer in unit.channel_layers:
        for owner in {unit.name, layer.rows, layer.columns} - {None}:
            assert owner is not None
            yield owner, layer.layer
    for total in unit.sums:
        if total.activation_module is not None:
            yield unit.name, total.activation_module


def _replace_forward(stack: ExitStack, block: nn.Module, output: object) -> None:
    """Let a block return what is given, until the stack is left; its attributes stay, as models ask for them."""

    def known(*_inputs: object, **_others: object) -> object:
        return output

    before = block.__dict__.get("forward")
    block.__dict__["forward"] = known
    if before is None:
        stack.callback(block.__dict__.pop, "forward")
    else:
        stack.callback(block.__dict__.__setitem__, "forward", before)


def _is_plain(output: object) -> bool:
    """Whether an output is made of tensors alone, so that nothing else can pass from one block to the next."""
    if isinstance(output, tuple):
        return all(_is_plain(part) for part in output)
    return output is None or isinstance(output, Tensor)


def _own(output: Any) -> Any:
    """The output, with copies of tensors that are a part of a larger one's memory."""
    if isinstance(output, tuple):
        return tuple(_own(part) for part in output)
    if isinstance(output, Tensor) and output.untyped_storage().nbytes() > output.nbytes:
        return output.clone()
    return output


def _size_bytes(output: Any) -> int:
    if isinstance(output, tuple):
        return sum(_size_bytes(part) for part in output)
    return output.nbytes if isinstance(output, Tensor) else 0
