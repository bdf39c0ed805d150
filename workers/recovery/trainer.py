"""The training loop: steps, scores between them, the best state kept, and returns from losses that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from evaluators.scores import Quality
from workers.calibrate_gradients import gives_embeddings
from workers.recovery.batches import Batch, Teacher, TrainingData
from workers.recovery.config import QuantizationMode, RecoveryConfig
from workers.recovery.layers import RecoveryError, TrainedCodes, quantized_layers, scope_of, shipped
from workers.recovery.losses import (
    distillation_loss,
    embedding_loss,
    hidden_loss,
    quantization_loss,
    scored,
    task_loss,
)
from workers.recovery.schedule import learning_rate, loss_weights, weight_bits
from workers.recovery.state import (
    Counters,
    bits_of,
    optimizer_copy,
    put_back,
    read_checkpoint,
    tensors_of,
    write_checkpoint,
)

_LARGEST_GRADIENT = 1.0
_DECAY = 0.01
_MOST_ROLLBACKS = 3
_SNAPSHOT_STEPS = 50


class DivergedError(RecoveryError):
    """The loss became NaN or infinite again and again, with ever smaller steps."""


class StepHook(Protocol):
    """Takes part in every step, for training that makes a model sparse."""

    def penalty(self) -> Tensor:
        """What is added to the loss."""
        ...

    def before_update(self, progress: float) -> None:
        """Called with gradients in place, before the optimizer uses them."""
        ...

    def after_update(self) -> None:
        """Called when the optimizer has moved the weights."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a training works with.

    Attributes:
        data: Training examples.
        teacher: The dense model.
        score: Quality of a model as it would ship, on the search split.
        examples_per_call: Examples of one call of the deployed model.
        device: Where to train.
        identity: Digest of all that the training depends on; a checkpoint of another one is refused.
        hook: Takes part in every step; None for none.
    """

    data: TrainingData
    teacher: Teacher
    score: Callable[[nn.Module], Quality]
    examples_per_call: int
    device: torch.device
    identity: str
    hook: StepHook | None = None


class Trainer:
    """Trains a model that `make_trainable` has prepared.

    Args:
        model: The model, changed in place.
        config: How.
        setting: With what.
        checkpoint: File that a snapshot is written to every 50 steps, from which training goes on after a crash with
            the same bits; None writes none.
    """

    def __init__(
        self, model: nn.Module, config: RecoveryConfig, setting: Setting, checkpoint: Path | None = None
    ) -> None:
        self.model = model.to(setting.device).eval()
        self.config, self.setting, self._checkpoint = config, setting, checkpoint
        self.counters = Counters()
        self._scope = scope_of(self.model)
        self._embeds = gives_embeddings(self.model)
        if self._embeds and not config.beta:
            raise RecoveryError(
                "sentence encoders are trained on what the dense model answers, whatever their pairs' scores; got "
                "recovery.beta=0, which leaves nothing to learn; set it above 0"
            )
        self._steps_in_epoch = setting.data.steps
        self.steps = config.epochs * self._steps_in_epoch
        self._least_bits = min((layer.target.weight_bits for layer in quantized_layers(self.model)), default=32)
        self._optimizer = torch.optim.AdamW(_parameter_groups(self.model), lr=config.learning_rate)
        self._scaler = torch.amp.GradScaler(setting.device.type, enabled=setting.device.type == "cuda")
        self._order: tuple[int, list[tuple[int, ...]]] = (-1, [])
        self._best = tensors_of(self.model), bits_of(self.model)
        self._good: dict[str, Any] = {}
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        else:
            self._consider(self._score())
            self._snapshot()

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or scores stopped getting better."""
        return self.counters.finished

    def run_to_evaluation(self) -> float:
        """Train until the model is scored next; return its metric on the search split.

        Raises:
            DivergedError: The loss is not finite, whatever the step.
        """
        while not self.finished:
            self._step()
            if self.counters.step in self._evaluation_steps() or self.counters.step == self.steps:
                metric = self._evaluate()
                self._snapshot()
                return metric
            if self.counters.step % _SNAPSHOT_STEPS == 0:
                self._snapshot()
        return self.counters.history[-1][1]

    def best_model(self) -> nn.Module:
        """A copy of the best state with the runtime's arithmetic, on the CPU."""
        now = tensors_of(self.model), bits_of(self.model)
        put_back(self.model, *self._best)
        found = shipped(self.model)
        put_back(self.model, *now)
        return found

    def best_tensors(self) -> tuple[dict[str, Tensor], list[int | None]]:
        """What `put_back` needs to make a model the best state."""
        return self._best

    def save(self, path: Path) -> None:
        """Write a checkpoint of the last snapshot."""
        best_tensors, best_bits = self._best
        content = {**self._good, "best_tensors": best_tensors, "best_bits": best_bits}
        write_checkpoint(path, self.setting.identity, self.counters, content)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: It can't be read, or belongs to another training.
        """
        self.counters, content = read_checkpoint(path, self.setting.identity)
        self._good = {key: content[key] for key in ("tensors", "bits", "optimizer", "scaler", "step")}
        self._best = content["best_tensors"], content["best_bits"]
        self._restore()

    def _step(self) -> None:
        counters, config = self.counters, self.config
        progress = counters.step / self.steps
        for layer in quantized_layers(self.model):
            self._use_bits(layer, progress)
        for group in self._optimizer.param_groups:
            group["lr"] = counters.rate_factor * learning_rate(config.learning_rate, progress)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._next_batch(), progress)
        if not bool(loss.isfinite()) or not self._update(loss, progress):
            self._roll_back(float(loss.detach()))
            return
        counters.step += 1
        counters.finished = counters.step >= self.steps

    def _update(self, loss: Tensor, progress: float) -> bool:
        """Move the weights; false where gradients are not finite and nothing was moved."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._trained(), _LARGEST_GRADIENT)
        if not self._scaler.is_enabled() and not bool(norm.isfinite()):
            return False
        hook = self.setting.hook
        if hook is not None:
            hook.before_update(progress)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if hook is not None:
            hook.after_update()
        return True

    def _loss(self, batch: Batch, progress: float) -> Tensor:
        config, weights = self.config, loss_weights(self.config, progress)
        calls = self.setting.examples_per_call
        self._scope.examples = calls if len(batch.rows) % calls == 0 else None
        with torch.autocast(self.setting.device.type, dtype=torch.float16, enabled=self._scaler.is_enabled()):
            outputs: Any = self.model(**batch.inputs, output_hidden_states=config.hidden > 0)
        loss: Tensor = outputs.logits.new_zeros(())
        if weights.task and not self._embeds:
            loss = loss + weights.task * task_loss(*scored(outputs.logits, batch.targets))
        if weights.distillation:
            answer, states = self.setting.teacher.answer(batch)
            taught = self._taught(outputs.logits, answer, batch, temperature=weights.temperature)
            if config.hidden:
                mask = batch.inputs.get("attention_mask")
                taught = taught + config.hidden * hidden_loss(outputs.hidden_states, states, mask)
            loss = loss + weights.distillation * taught
        layers = quantized_layers(self.model)
        if weights.quantization and layers and config.quantization is not QuantizationMode.OFF:
            pairs = [(layer.weight, layer.rounded_weight()) for layer in layers if layer.bits is not None]
            loss = loss + weights.quantization * quantization_loss(pairs) if pairs else loss
        return loss if self.setting.hook is None else loss + self.setting.hook.penalty()

    def _taught(self, logits: Tensor, answer: Tensor, batch: Batch, *, temperature: float) -> Tensor:
        """How far outputs are from the dense model's: by cosine where they are embeddings, of which one is a row."""
        if self._embeds:
            return embedding_loss(logits, answer.reshape(logits.shape))
        logits_TC, answer_TC = (scored(found, batch.targets)[0] for found in (logits, answer))
        return distillation_loss(logits_TC, answer_TC, temperature=temperature)

    def _next_batch(self) -> Batch:
        epoch, place = divmod(self.counters.step, self._steps_in_epoch)
        if self._order[0] != epoch:
            self._order = epoch, self.setting.data.order(epoch)
        return self.setting.data.batch(self._order[1][place]).to(self.setting.device)

    def _use_bits(self, layer: TrainedCodes, progress: float) -> None:
        bits = layer.target.weight_bits
        mode = self.config.quantization
        layer.use_bits(weight_bits(mode, progress, target_bits=bits, least_bits=self._least_bits))

    def _evaluation_steps(self) -> set[int]:
        count = self.config.epochs * self.config.evaluations
        return {math.ceil(self.steps * (number + 1) / count) for number in range(count)}

    def _evaluate(self) -> float:
        quality, counters = self._score(), self.counters
        counters.evaluations += 1
        counters.waited = 0 if self._consider(quality) else counters.waited + 1
        counters.finished |= counters.waited >= self.config.patience
        return quality.value

    def _score(self) -> Quality:
        return self.setting.score(shipped(self.model))

    def _consider(self, quality: Quality) -> bool:
        """Keep the state if it is the best; of two with one metric the one nearer to the dense model."""
        counters, standing = self.counters, (quality.value, -quality.kl_to_dense)
        counters.history.append((counters.step, quality.value))
        if not standing > counters.best:
            return False
        counters.best, counters.best_step = standing, counters.step
        self._best = tensors_of(self.model), bits_of(self.model)
        return True

    def _snapshot(self) -> None:
        self._good = {
            "tensors": tensors_of(self.model),
            "bits": bits_of(self.model),
            "optimizer": optimizer_copy(self._optimizer),
            "scaler": self._scaler.state_dict(),
            "step": self.counters.step,
        }
        if self._checkpoint is not None:
            self.save(self._checkpoint)

    def _restore(self) -> None:
        put_back(self.model, self._good["tensors"], self._good["bits"])
        self._optimizer.load_state_dict(self._good["optimizer"])
        self._scaler.load_state_dict(self._good["scaler"])

    def _roll_back(self, loss: float) -> None:
        """Return to the last good state with half the step."""
        counters = self.counters
        counters.rollbacks += 1
        if counters.rollbacks > _MOST_ROLLBACKS:
            raise DivergedError(
                f"losses and gradients must be finite; got {loss:g} at step {counters.step} of {self.steps} after "
                f"{_MOST_ROLLBACKS} returns to a good state with half the step each; lower learning_rate (it is "
                f"{self.config.learning_rate:g}), or look at the training examples"
            )
        counters.rate_factor /= 2
        counters.step = self._good["step"]
        self._restore()

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def _parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay, biases, normalisations and scales do not."""
    named = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
    decayed = [tensor for name, tensor in named if tensor.ndim > 1 and not name.endswith("log_scale_ON")]
    others = [tensor for name, tensor in named if tensor.ndim <= 1 or name.endswith("log_scale_ON")]
    return [{"params": decayed, "weight_decay": _DECAY}, {"params": others, "weight_decay": 0.0}]
