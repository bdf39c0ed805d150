"""Assembly: from a policy to a model, by swapping the layers of the units that differ from the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.architectures.shared_bias import GroupSelection
from search_spaces.channels import ChannelUnit
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, Unit, UnitKind
from workers.assemble_channels import ChannelAssembler
from workers.prefix import PREFIX_BYTES, PrefixCache
from workers.quantization.embedding import make_embedding
from workers.quantization.linear import Bypass, CallScope, ConstantBranch, SharedInput, UnreadNorm, make_linear
from workers.variant_store import Variant

Modules = Mapping[str, nn.Module]
_MODULES_KEPT = 512


class Assembler:
    """Turns one skeleton into the model of any policy, on the skeleton's device.

    Args:
        model: The dense model; it is changed in place.
        structure: Its units.
        variant: Returns the tensors of a unit under a choice.
    """

    def __init__(self, model: nn.Module, structure: ModelStructure, variant: Callable[[Unit, Choice], Variant]) -> None:
        self.model = model
        self.scope = CallScope()
        self._structure = structure
        self._device = next(model.parameters()).device
        self._make = variant
        channel_units = [unit for unit in structure.units if isinstance(unit, ChannelUnit)]
        self._channels = ChannelAssembler(model, channel_units, structure.base_format, self._variant)
        self._units = [unit for unit in structure.units if not isinstance(unit, ChannelUnit)]
        self._dense = {u.name: {name: model.get_submodule(name) for name in _places(u)} for u in self._units}
        self._current = {u.name: Choice(u.groups, structure.base_format) for u in self._units}
        self._modules = lru_cache(maxsize=_MODULES_KEPT)(self._build)
        self._prefixes = PrefixCache(model, structure, ())

    def apply(self, policy: Policy) -> nn.Module:
        """Make the skeleton the model of a policy; only units whose choice changed are touched."""
        self._prefixes.use(None)
        self._channels.apply(policy)
        for unit in self._units:
            choice = policy[unit.name]
            if choice != self._current[unit.name]:
                for name, module in (*self._dense[unit.name].items(), *self._modules(unit, choice).items()):
                    self.model.set_submodule(name, module)
                self._current[unit.name] = choice
        self._prefixes.use(policy)
        return self.model

    def remember(self, calls: Sequence[StackedCalls], *, budget_bytes: int = PREFIX_BYTES) -> None:
        """Keep what blocks return on these calls, so that a later policy runs from the first block that differs on.

        Args:
            calls: Calls that every policy is scored on; replaces those of before.
            budget_bytes: Memory for it.
        """
        self._prefixes = PrefixCache(self.model, self._structure, calls, budget_bytes=budget_bytes)

    def logits(self, inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
        """Run the assembled model.

        Args:
            inputs: Model inputs; those of a remembered call are recognised by their mapping.
            examples_per_call: Examples in one call of the deployed model; divides the batch axis.
        """
        self.scope.examples = examples_per_call
        with torch.inference_mode():
            return self._prefixes.run(inputs, lambda: logits_of(self.model, inputs))

    def _variant(self, unit: Unit, choice: Choice) -> Variant:
        return {name: tensor.to(self._device) for name, tensor in self._make(unit, choice).items()}

    def _build(self, unit: Unit, choice: Choice) -> Modules:
        if choice == Choice(unit.groups, self._structure.base_format):
            return {}
        tensors = self._variant(unit, choice)
        if choice.keep == 0:
            return {**_constant(unit, tensors, self._device), **_unread_norm(unit, self._dense[unit.name])}
        target = FORMATS.get(choice.format)
        if unit.kind is UnitKind.EMBEDDING:
            parts = {key.rpartition("/")[2]: tensor for key, tensor in tensors.items()}
            return {unit.consumer: make_embedding(parts, target)}
        found: dict[str, nn.Module] = {}
        readers = Counter(unit.input_layer(name) for name in unit.layers)
        inputs = {name: SharedInput(count) for name, count in readers.items()}
        for name, _, in_features in unit.layer_shapes(choice.keep):
            parts = {key.rpartition("/")[2]: t for key, t in tensors.items() if key.rpartition("/")[0] == name}
            shared = inputs[unit.input_layer(name)]
            found[name] = make_linear(parts, target, in_features=in_features, scope=self.scope, shared=shared)
        if unit.selection is not None and choice.keep < unit.groups:
            found[unit.selection] = GroupSelection(tensors[f"{unit.selection}/kept"])
        return found


def logits_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Run a model on the device that it is on, and bring its logits back."""
    device = next(model.parameters()).device
    logits: Tensor = model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
    return logits.cpu()


def _places(unit: Unit) -> tuple[str, ...]:
    """Modules that choices of a unit replace, the branch first, so that putting all back restores it whole."""
    branch = [] if unit.branch is None else [unit.branch.module, unit.branch.norm]
    return tuple(name for name in (*branch, *unit.layers, unit.selection) if name is not None)


def _constant(unit: Unit, tensors: Variant, device: torch.device) -> Modules:
    assert unit.branch is not None, unit.name
    bias_O = tensors.get(f"{unit.consumer}/bias")
    if bias_O is None:
        bias_O = torch.zeros(unit.out_features, device=device)
    branch = unit.branch
    if unit.consumer.startswith(branch.module + "."):
        return {branch.module: ConstantBranch(bias_O, returns_tuple=branch.returns_tuple)}
    return {branch.module: Bypass(returns_tuple=branch.returns_tuple), unit.consumer: ConstantBranch(bias_O)}


def _unread_norm(unit: Unit, dense: Modules) -> Modules:
    """What stands in place of the normalisation of a branch that is left out."""
    assert unit.branch is not None, unit.name
    return {} if unit.branch.norm is None else {unit.branch.norm: UnreadNorm(dense[unit.branch.norm])}
