"""What compression learns from the calibration examples: second moments of inputs, and gradients where asked for.

Shape letters: B batch, S sequence, T tokens, K input features, O output features, G groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.channels import ChannelUnit
from search_spaces.units import Unit, UnitKind

FOLDS = 2
MOMENTS_BYTES = 2**33
"""Second moments that are held at once, unless said otherwise."""
_CHUNK_TOKENS = 2048
"""Products of so many tokens are summed in float32, in tiles; their sums are added in float64."""
_TILE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Second moments of a layer's input, with a constant 1 appended as last feature.

    The constant makes the bias one more column of the weight, so that least squares solves it as well.

    Attributes:
        gram_FKK: For each fold of the examples the sum of outer products, float64, shape (FOLDS, K + 1, K + 1).
            Folds allow cross-validation of the ridge.
        rounding: Squared error of one feature, summed over the tokens, when each call's input is rounded to 256 even
            steps over its range, as kernels with dynamic activations do. It counts as an independent part of the input.
    """

    gram_FKK: Tensor
    rounding: float = 0.0

    @property
    def gram_KK(self) -> Tensor:
        """Sum over all folds, shape (K + 1, K + 1)."""
        return self.gram_FKK.sum(0)

    @property
    def tokens(self) -> int:
        """Tokens seen."""
        return int(self.gram_FKK[:, -1, -1].sum())

    @property
    def mean_K(self) -> Tensor:
        """Mean input, shape (K,)."""
        gram_KK = self.gram_KK
        return gram_KK[:-1, -1] / gram_KK[-1, -1]


class CalibrationError(ValueError):
    """The calibration data gave values that are not finite."""


class Calibration:
    """What compression knows about the data, computed when it is first asked for.

    Units whose moments fit into memory together share a pass over the examples. Asked for in the model's order, units
    of a larger model take one pass for each batch of them, which ends where the last of them is reached.

    Layers between channels have a pass of their own (`workers.calibrate_channels`).

    Args:
        units: Units whose layers are watched.
        calls: The calibration split as the target would run it; padding is left out by its attention mask.
        model: Gives the dense model when a pass is due.
        targets: What the outputs of each call are compared with, as the task gives it; None takes the model's own
            most likely answers. Only the Taylor saliency looks at them.
        moments_bytes: Second moments that are held at once; those of a single unit always are.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        calls: Sequence[StackedCalls],
        model: Callable[[], nn.Module],
        *,
        targets: Sequence[Tensor] | None = None,
        moments_bytes: int = MOMENTS_BYTES,
    ) -> None:
        self.model, self.calls, self._targets = model, calls, targets
        self._units = [u for u in units if not isinstance(u, ChannelUnit) and u.kind is not UnitKind.EMBEDDING]
        self._batches = list(_batches(self._units, moments_bytes))
        self._moments: dict[str, Moments] = {}
        self._fisher: dict[str, Tensor] = {}
        self._taylor: dict[str, Tensor] = {}
        digest = hashlib.sha256()
        for call in calls:
            for key in sorted(call.inputs):
                digest.update(call.inputs[key].numpy().tobytes())
        for target in targets or ():
            digest.update(target.numpy().tobytes())
        self.digest = digest.hexdigest()[:16]
        """Identity of the examples."""

    def moments(self, layer: str) -> Moments:
        """Second moments of a layer's input.

        Raises:
            CalibrationError: An input of a unit's layer is not finite.
        """
        if layer not in self._moments:
            self._moments.clear()
            self._moments |= collect_moments(self.model(), self._batch_of(layer), self.calls)
        return self._moments[layer]

    def fisher(self, unit: Unit) -> Tensor:
        """How much an error of a unit's output moves the model's answers, (O, O), float64, of mean diagonal 1.

        Raises:
            CalibrationError: A gradient is not finite.
        """
        from workers.calibrate_gradients import collect_fisher

        if unit.name not in self._fisher:
            batch = self._batch_of(unit.consumer)
            alike = [other for other in batch if other.kind is unit.kind]
            kept = {name: metric for name, metric in self._fisher.items() if any(name == u.name for u in batch)}
            self._fisher = kept | collect_fisher(self.model(), alike, self.calls)
        return self._fisher[unit.name]

    def taylor(self, unit: Unit) -> Tensor:
        """What the loss would change by without each group, to first order, (G,), float64.

        Raises:
            CalibrationError: A gradient is not finite.
        """
        from workers.calibrate_gradients import collect_taylor

        if not self._taylor:
            self._taylor |= collect_taylor(self.model(), self._units, self.calls, self._targets)
        return self._taylor[unit.name]

    def _batch_of(self, layer: str) -> Sequence[Unit]:
        return next(batch for batch in self._batches if any(layer in unit.layers for unit in batch))


def _batches(units: Sequence[Unit], moments_bytes: int) -> Iterator[list[Unit]]:
    """Split units into runs whose moments fit into memory."""
    batch: list[Unit] = []
    used = 0
    for unit in units:
        widths = {unit.input_layer(layer): unit.in_features for layer in unit.layers}
        widths[unit.consumer] = unit.groups * unit.columns_per_group
        size = 8 * sum(FOLDS * (width + 1) ** 2 for width in widths.values()) + 8 * unit.out_features**2
        if batch and used + size > moments_bytes:
            yield batch
            batch, used = [], 0
        batch.append(unit)
        used += size
    if batch:
        yield batch


def collect_moments(model: nn.Module, units: Sequence[Unit], calls: Sequence[StackedCalls]) -> dict[str, Moments]:
    """Run the dense model over the calibration examples and sum second moments for all units at once.

    Activations are held of one call at a time, and of it only what the model itself holds.

    Returns:
        Moments by layer name; producers that read the same input share one entry, stored under each of their names.

    Raises:
        CalibrationError: An input of a unit's layer is not finite.
    """
    units = [unit for unit in units if unit.kind is not UnitKind.EMBEDDING]
    sums = {unit.input_layer(layer): GramSum() for unit in units for layer in unit.layers}
    context = {p.layer for unit in units for p in unit.producers if p.input_index == 1}
    progress = _CallProgress(len(sums))
    with ExitStack() as stack, torch.no_grad():
        for name, total in sums.items():
            watch = partial(_watch, total, progress, name, name in context)
            stack.callback(model.get_submodule(name).register_forward_pre_hook(watch).remove)
        for call in calls:
            progress.start(call)
            with suppress(_AllSeenError):
                model(**progress.inputs_for(model))
    shared = {name: Moments(gram_FKK=total.finish(), rounding=total.rounding) for name, total in sums.items()}
    moments: dict[str, Moments] = {}
    for unit in units:
        for layer in unit.layers:
            moments[layer] = shared[unit.input_layer(layer)]
            if not bool(moments[layer].gram_FKK.isfinite().all()):
                raise CalibrationError(
                    f"inputs of {layer} (unit {unit.name}) must be finite; got NaN or infinity on the calibration "
                    "data; check the model's weights and the data"
                )
    return moments


class GramSum:
    """Outer products of inputs, a constant 1 appended, summed for each fold of the examples.

    Tiles on and above the diagonal are summed; `finish` mirrors them.
    """

    def __init__(self) -> None:
        self.gram_FKK = torch.empty(0)
        self.rounding = 0.0
        self._examples = 0

    def add_batch(self, hidden: Tensor, mask_BS: Tensor | None) -> None:
        """Add inputs of shape (B, ..., K), examples to the folds in turn."""
        for offset in range(min(FOLDS, len(hidden))):
            part = hidden[offset::FOLDS]
            if mask_BS is not None:
                part = part[mask_BS[offset::FOLDS]]
            input_TK = part.reshape(-1, hidden.shape[-1])
            for start in range(0, len(input_TK), _CHUNK_TOKENS):
                self._add(input_TK[start : start + _CHUNK_TOKENS].float(), (self._examples + offset) % FOLDS)
        self._examples += len(hidden)

    def add_rounding(self, hidden: Tensor, mask_BS: Tensor | None, *, examples_per_call: int) -> None:
        """Add the error of rounding inputs of shape (B, ..., K) with one range for each call, padding included."""
        calls = len(hidden) // examples_per_call
        low_C, high_C = torch.aminmax(hidden.reshape(calls, -1), dim=1)
        step_C = (high_C.clamp(min=0).double() - low_C.clamp(max=0).double()) / 255
        if mask_BS is None:
            tokens_C = torch.full_like(step_C, hidden.numel() / hidden.shape[-1] / calls)
        else:
            tokens_C = mask_BS.reshape(calls, -1).sum(1).to(step_C)
        # An error is even between half a step below and above.
        self.rounding += float((step_C.square() * tokens_C).sum()) / 12

    def finish(self) -> Tensor:
        """The whole sums, (FOLDS, K + 1, K + 1); nothing can be added afterwards."""
        for gram_KK in self.gram_FKK:
            gram_KK.triu_()
            gram_KK += gram_KK.triu(1).T
        return self.gram_FKK

    def _add(self, input_TK: Tensor, fold: int) -> None:
        augmented_TK = torch.cat([input_TK, input_TK.new_ones(len(input_TK), 1)], dim=1)
        width = augmented_TK.shape[1]
        if self.gram_FKK.numel() == 0:
            self.gram_FKK = torch.zeros(FOLDS, width, width, dtype=torch.float64, device=input_TK.device)
        for start in range(0, width, _TILE):
            rows = slice(start, min(width, start + _TILE))
            self.gram_FKK[fold, rows, start:] += augmented_TK[:, rows].T @ augmented_TK[:, start:]


class _AllSeenError(Exception):
    """Ends a forward pass whose remaining layers nobody watches."""


class _CallProgress:
    """Which watched layers a forward pass has reached, and the masks of its inputs.

    The first call runs whole and tells whether each layer runs once; only then may later ones end early.
    """

    def __init__(self, layers: int) -> None:
        self._layers, self._seen, self._first = layers, set[str](), True
        self._runs_once = True
        self._inputs: dict[str, Tensor] = {}
        self.examples_per_call = 1

    def start(self, call: StackedCalls) -> None:
        self._first = self._first and not self._seen
        self._seen = set()
        self._inputs = dict(call.inputs)
        self.examples_per_call = call.examples_per_call

    def inputs_for(self, model: nn.Module) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        self._inputs = {name: tensor.to(device) for name, tensor in self._inputs.items()}
        return self._inputs

    def mask(self, layer: str, reads_context: bool) -> Tensor | None:
        """The mask of a layer's input: that of the decoder's tokens in a decoder beside an encoder."""
        in_decoder = "decoder_input_ids" in self._inputs and "decoder" in layer.split(".")
        return self._inputs.get("decoder_attention_mask" if in_decoder and not reads_context else "attention_mask")

    def reached(self, layer: str) -> None:
        self._runs_once = self._runs_once and layer not in self._seen
        self._seen.add(layer)
        if not self._first and self._runs_once and len(self._seen) == self._layers:
            raise _AllSeenError


def _watch(
    total: GramSum, progress: _CallProgress, name: str, context: bool, _module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    hidden, mask_BS = inputs[0], progress.mask(name, context)
    if mask_BS is not None and hidden.shape[:2] != mask_BS.shape:
        mask_BS = None
    mask_BS = None if mask_BS is None else mask_BS.bool()
    total.add_batch(hidden, mask_BS)
    total.add_rounding(hidden, mask_BS, examples_per_call=progress.examples_per_call)
    progress.reached(name)
