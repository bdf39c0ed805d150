"""What recovery training is told."""

from __future__ import annotations

import hashlib
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class QuantizationMode(StrEnum):
    """When weights and inputs of quantized layers are rounded during training."""

    JOINT = "joint"
    """From the first step on."""
    STAGED = "staged"
    """In the second half; the first one trains what pruning left."""
    PROGRESSIVE = "progressive"
    """To 16 bits first, then 8, then 4, until each layer has the bits of its format."""
    OFF = "off"
    """Only when training is over, to nearest."""


class Sparsity(StrEnum):
    """How the dense model is prepared for pruning, before its units are compressed anew."""

    OFF = "off"
    """Not at all: the weights that were searched are pruned."""
    GROUP_LASSO = "group_lasso"
    """Trained with a penalty on the norm of every group of a unit, so that whole groups shrink."""
    RIGL = "rigl"
    """Trained under masks with as many groups as the policy keeps; now and then the weakest groups that are in give
    way to those outside with the largest gradients."""


class RecoveryConfig(BaseModel):
    """Training of a pruned and quantized model on what the dense one says, in the formats that ship.

    The loss is alpha * task + beta * (distillation + hidden * hidden states) + gamma * quantization.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    members: int = Field(default=0, ge=0, le=1000)
    """Members of the front that are trained after the search, spread over it, 0 to 1,000; an export reads what was
    trained, or trains what it is asked for."""
    source: str | None = None
    """File or hub id of examples to train on, with the columns of data; rows of the search and holdout splits are left
    out. Without it the calibration split is all there is."""
    examples: int | None = Field(default=None, ge=1)
    """Most examples to train on, 1 or more; without it all."""
    epochs: int = Field(default=2, ge=1, le=1000)
    """Passes over the examples, 1 to 1,000."""
    batch: int = Field(default=32, ge=1, le=65536)
    """Examples in one step, 1 to 65,536."""
    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Largest learning rate, above 0 to 1; it rises at first and then falls to 0."""
    alpha: float = Field(default=0.5, ge=0, le=1000)
    """Weight of the labels at the end of training, 0 to 1,000; sentence encoders are trained without labels."""
    labels_from: float = Field(default=0.25, ge=0, lt=1)
    """Share of the training after which labels count, 0 to below 1; from there their weight rises to alpha."""
    beta: float = Field(default=1.0, ge=0, le=1000)
    """Weight of the dense model's answers, 0 to 1,000; 0 trains on labels alone. Embeddings are compared by cosine."""
    gamma: float = Field(default=0.01, ge=0, le=1000)
    """Weight of the distance of weights from their codes, 0 to 1,000."""
    hidden: float = Field(default=0.0, ge=0, le=1000)
    """Weight of hidden states beside answers, 0 to 1,000; above 0 the dense model runs in every step."""
    temperature: float = Field(default=2.0, gt=0, le=100)
    """Temperature of the distillation at the start, above 0 to 100."""
    last_temperature: float = Field(default=1.0, gt=0, le=100)
    """Temperature at the end."""
    quantization: QuantizationMode = QuantizationMode.JOINT
    """When weights are rounded: joint, staged, progressive or off."""
    sparsity: Sparsity = Sparsity.OFF
    """Whether the dense model is prepared for pruning: off, group_lasso or rigl."""
    evaluations: int = Field(default=2, ge=1, le=100)
    """Times in an epoch that the model is scored on the search split, 1 to 100; the best state is kept."""
    patience: int = Field(default=4, ge=1, le=1000)
    """Scores without a gain after which training stops, 1 to 1,000."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the order of examples, 0 to 4,294,967,295."""

    @property
    def digest(self) -> str:
        """Identity of a training: 16 hexadecimal digits over all but how many members get it."""
        return hashlib.sha256(self.model_dump_json(exclude={"members"}).encode()).hexdigest()[:16]
