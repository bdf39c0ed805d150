"""Training of the dense model that makes whole groups of its units small, before these are pruned.

Shape letters: O output features, K input features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.tasks import Example
from search_spaces.channels import ChannelUnit
from search_spaces.policy import Policy
from search_spaces.units import ModelStructure, Unit, UnitKind
from workers.model import load_model
from workers.protocol import Split
from workers.recovery.batches import Teacher, TrainingData
from workers.recovery.config import QuantizationMode, RecoveryConfig, Sparsity
from workers.recovery.trainer import Setting, StepHook, Trainer
from workers.trial import TrialWorker

_LASSO = 1e-4
_UPDATES = 20
"""Updates of the masks in one training."""
_EXCHANGED = 0.3
_LAST_UPDATE = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSlices:
    """Where the groups of a unit lie in its layers.

    Attributes:
        rows: Layer to rows by group, shape (groups, rows of a group).
        columns: The consumer's columns by group, shape (groups, columns of a group).
        consumer: Name of the consumer.
    """

    rows: Mapping[str, Tensor]
    columns: Tensor
    consumer: str


def group_slices(unit: Unit) -> GroupSlices:
    """Rows of producers and columns of the consumer that belong to each group of a unit."""
    groups = range(unit.groups)
    rows = {p.layer: torch.tensor([p.rows([group], unit.groups) for group in groups]) for p in unit.producers}
    columns = torch.arange(unit.groups * unit.columns_per_group).view(unit.groups, -1)
    return GroupSlices(rows=rows, columns=columns, consumer=unit.consumer)


def group_norms(slices: GroupSlices, tensors: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of all weights, or gradients, of each group.

    Args:
        slices: Where groups lie.
        tensors: Layer to weight or gradient, shape (O, K).

    Returns:
        Shape (groups,).
    """
    squares = tensors[slices.consumer].t()[slices.columns].square().sum((1, 2))
    for layer, rows in slices.rows.items():
        squares = squares + tensors[layer][rows].square().sum((1, 2))
    return (squares + torch.finfo(squares.dtype).tiny).sqrt()


class GroupLasso:
    """A penalty on the norm of each group, times the root of its size.

    Args:
        model: The dense model.
        units: Units whose groups are to shrink.
        strength: Weight of the penalty.

    Reference:
        Yuan and Lin, Model Selection and Estimation in Regression with Grouped Variables (2006), equation 2.1; Wen et
        al., Learning Structured Sparsity in Deep Neural Networks (1608.03665), equation 2.
    """

    def __init__(self, model: nn.Module, units: Iterable[Unit], *, strength: float = _LASSO) -> None:
        self._layers = {unit.name: _weights(model, unit) for unit in units}
        self._slices = {unit.name: group_slices(unit) for unit in units}
        self._strength = strength

    def penalty(self) -> Tensor:
        """Sum over all groups."""
        parts = []
        for name, slices in self._slices.items():
            size = slices.columns.shape[1] * len(self._layers[name][slices.consumer])
            size += sum(rows.shape[1] * self._layers[name][layer].shape[1] for layer, rows in slices.rows.items())
            parts.append(math.sqrt(size) * group_norms(slices, self._layers[name]).sum())
        return self._strength * torch.stack(parts).sum() if parts else torch.zeros(())

    def before_update(self, progress: float) -> None:
        """Nothing: gradients hold the penalty's."""

    def after_update(self) -> None:
        """Nothing."""


class RiggedMasks:
    """Masks that leave each unit as many groups as its policy keeps, moved by weights and dense gradients.

    At each update the weakest groups inside make room for those outside with the largest gradients, fewer each time by
    half a cosine. Weights outside are zero, and their gradients are still computed.

    Args:
        model: The dense model.
        units: Its units.
        policy: How many groups stay.

    Reference:
        Evci et al., Rigging the Lottery (1911.11134), section 3 and appendix G, on groups in place of weights.
    """

    def __init__(self, model: nn.Module, units: Iterable[Unit], policy: Policy) -> None:
        self._units = [unit for unit in units if 0 < policy[unit.name].keep < unit.groups]
        self._layers = {unit.name: _weights(model, unit) for unit in self._units}
        self._slices = {unit.name: group_slices(unit) for unit in self._units}
        self.kept = {
            unit.name: _largest(group_norms(self._slices[unit.name], self._layers[unit.name]), policy[unit.name].keep)
            for unit in self._units
        }
        self._updates = 0
        self.after_update()

    def penalty(self) -> Tensor:
        """None."""
        return torch.zeros(())

    def before_update(self, progress: float) -> None:
        """Move the masks where it is time, then let nothing outside them grow."""
        if progress * _UPDATES >= self._updates + 1 and progress < _LAST_UPDATE:
            self._updates += 1
            share = _EXCHANGED / 2 * (1 + math.cos(math.pi * progress / _LAST_UPDATE))
            for unit in self._units:
                self._exchange(unit.name, share)
        for unit in self._units:
            for weight in self._layers[unit.name].values():
                assert weight.grad is not None
            _clear(self._slices[unit.name], _gradients(self._layers[unit.name]), ~self.kept[unit.name])

    @torch.no_grad()
    def after_update(self) -> None:
        """Put what is outside back to zero."""
        for unit in self._units:
            _clear(self._slices[unit.name], self._layers[unit.name], ~self.kept[unit.name])

    @torch.no_grad()
    def _exchange(self, unit: str, share: float) -> None:
        slices, layers, kept = self._slices[unit], self._layers[unit], self.kept[unit]
        count = min(int(share * int(kept.sum())), int((~kept).sum()))
        if count:
            weights, gradients = group_norms(slices, layers), group_norms(slices, _gradients(layers))
            self.kept[unit] = exchanged(kept, weights, gradients, count)


def exchanged(kept_G: Tensor, weights_G: Tensor, gradients_G: Tensor, count: int) -> Tensor:
    """Drop the groups inside with the smallest weights for those outside with the largest gradients.

    Args:
        kept_G: Which are inside.
        weights_G: Norms of weights.
        gradients_G: Norms of gradients.
        count: How many.
    """
    dropped = weights_G.masked_fill(~kept_G, math.inf).argsort(stable=True)[:count]
    grown = gradients_G.masked_fill(kept_G, -math.inf).argsort(descending=True, stable=True)[:count]
    found_G = kept_G.clone()
    found_G[dropped], found_G[grown] = False, True
    return found_G


def sparse_worker(
    worker: TrialWorker, policy: Policy, config: RecoveryConfig, examples: Sequence[Example], digest: str
) -> TrialWorker:
    """Train the dense model towards few groups, and return a worker whose variants are cut from it.

    Args:
        worker: Holds the dense model.
        policy: How many groups are to stay.
        config: The training; nothing is rounded in it.
        examples: What it is trained on.
        digest: Identity of the training; a model that was trained before is read.
    """
    folder = worker.spec.cache_dir / "sparse" / digest
    if not (folder / "model.safetensors").is_file():
        _train(worker, policy, config, examples, folder)
    model = worker.spec.model.model_copy(update={"id": str(folder), "revision": None})
    return TrialWorker(replace(worker.spec, model=model))


def _train(
    worker: TrialWorker, policy: Policy, config: RecoveryConfig, examples: Sequence[Example], folder: Path
) -> None:
    loaded = load_model(worker.spec.model)
    model: Any = loaded.model
    model.requires_grad_(True)
    for layer in model.modules():
        if isinstance(layer, nn.Embedding):
            layer.requires_grad_(False)
    device = torch.device("cpu")
    data = TrainingData(worker.task, examples, batch=config.batch, seed=config.seed)
    own = config.model_copy(update={"hidden": 0.0, "gamma": 0.0, "quantization": QuantizationMode.OFF})
    teacher = Teacher(load_model(worker.spec.model).model, data, hidden=False, device=device)
    hook = _hook(model, loaded.structure, policy, config.sparsity)
    setting = Setting(
        data=data,
        teacher=teacher,
        score=lambda found: worker.quality_of(found, Split.SEARCH),
        examples_per_call=worker.spec.target.batch,
        device=device,
        identity=hashlib.sha256(str(folder).encode()).hexdigest(),
        hook=hook,
    )
    trainer = Trainer(model, own, setting)
    while not trainer.finished:
        trainer.run_to_evaluation()
    model.save_pretrained(folder)
    if worker.processor is not None:
        worker.processor.save_pretrained(folder)


def _hook(model: nn.Module, structure: ModelStructure, policy: Policy, sparsity: Sparsity) -> StepHook:
    kinds = (UnitKind.ATTENTION, UnitKind.FEED_FORWARD)
    units = [unit for unit in structure.units if not isinstance(unit, ChannelUnit) and unit.kind in kinds]
    pruned = [unit for unit in units if policy[unit.name].keep < unit.groups]
    return GroupLasso(model, pruned) if sparsity is Sparsity.GROUP_LASSO else RiggedMasks(model, pruned, policy)


def _weights(model: nn.Module, unit: Unit) -> dict[str, Tensor]:
    return {name: model.get_parameter(f"{name}.weight") for name in unit.layers}


def _gradients(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in layers.items() if weight.grad is not None}


def _largest(norms_G: Tensor, keep: int) -> Tensor:
    kept_G = torch.zeros(len(norms_G), dtype=torch.bool)
    kept_G[norms_G.argsort(descending=True, stable=True)[:keep]] = True
    return kept_G


def _clear(slices: GroupSlices, tensors: Mapping[str, Tensor], groups_G: Tensor) -> None:
    tensors[slices.consumer].detach()[:, slices.columns[groups_G].flatten()] = 0
    for layer, rows in slices.rows.items():
        tensors[layer].detach()[rows[groups_G].flatten()] = 0
