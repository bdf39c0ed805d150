"""The network of the `reinforce` sampler: from a unit's state to preferences among its actions.

It walks in NumPy, one unit after the other, as each step depends on what the steps before have spent, and learns in
torch, all steps of a batch at once.

Shape letters: B episodes, U units, S fixed features of a unit, D features that change along an episode, E length of an
embedding, H hidden width, C actions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.samplers.choices import Floats, Options

_EMBEDDING = 8
_HIDDEN = 32
_LEARNING_RATE = 0.02
_ENTROPY_WEIGHT = 0.01
_FADE = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Episodes to learn from.

    Attributes:
        fixed_US: Features of units.
        moving_BUD: Features that changed along the episodes.
        prior_BUC: Logits that the network's are added to; minus infinity for actions that were not open.
        actions_BU: What was done.
        advantages_B: How much better than expected each episode was.
    """

    fixed_US: Floats
    moving_BUD: Floats
    prior_BUC: Floats
    actions_BU: Options
    advantages_B: Floats


class PolicyNetwork:
    """One hidden layer over a unit's features, a learned embedding of the unit, and the state of the episode.

    Its last layer starts at zero: at first all actions are as likely as the prior says.

    Args:
        units: Number of units.
        fixed: Number of fixed features of a unit.
        moving: Number of features that change along an episode.
        actions: Number of actions.
        seed: Seed of the first weights.
    """

    def __init__(self, *, units: int, fixed: int, moving: int, actions: int, seed: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Any:
            scale = 1.0 / np.sqrt(shape[0])
            return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

        self._parameters = {
            "embedding_UE": normal(units, _EMBEDDING) * np.sqrt(units),
            "embedded_EH": normal(_EMBEDDING, _HIDDEN),
            "fixed_SH": normal(fixed, _HIDDEN),
            "moving_DH": normal(moving, _HIDDEN),
            "bias_H": torch.zeros(_HIDDEN, dtype=torch.float64),
            "output_HC": torch.zeros(_HIDDEN, actions, dtype=torch.float64),
        }
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=_LEARNING_RATE)
        self._entropy_weight = _ENTROPY_WEIGHT
        self._arrays: dict[str, Floats] = {}
        self._keep_arrays()

    def unit_part(self, fixed_US: Floats) -> Floats:
        """Return what the hidden layer gets from the units, whatever happens along an episode, shape (U, H)."""
        arrays = self._arrays
        found: Floats = (
            fixed_US @ arrays["fixed_SH"] + arrays["embedding_UE"] @ arrays["embedded_EH"] + arrays["bias_H"]
        )
        return found

    def logits(self, unit_H: Floats, moving_D: Floats) -> Floats:
        """Return the preferences of one step, shape (C,), to be added to the prior."""
        hidden_H = np.tanh(unit_H + moving_D @ self._arrays["moving_DH"])
        found: Floats = hidden_H @ self._arrays["output_HC"]
        return found

    def learn(self, batch: Batch) -> None:
        """Take one step along the gradient of the expected reward, and of the entropy of what is done.

        Reference:
            Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
            Machine Learning 8, 1992.
        """
        import torch

        p = self._parameters
        unit_UH = torch.from_numpy(batch.fixed_US) @ p["fixed_SH"] + p["embedding_UE"] @ p["embedded_EH"] + p["bias_H"]
        hidden_BUH = torch.tanh(unit_UH + torch.from_numpy(batch.moving_BUD) @ p["moving_DH"])
        logits_BUC = hidden_BUH @ p["output_HC"] + torch.from_numpy(batch.prior_BUC)
        logs_BUC = torch.log_softmax(logits_BUC, dim=-1)
        chosen_BU = logs_BUC.gather(-1, torch.from_numpy(batch.actions_BU)[..., None])[..., 0]
        open_BUC = torch.isfinite(logits_BUC)
        entropy_BU = -torch.where(open_BUC, logs_BUC.exp() * logs_BUC.nan_to_num(neginf=0.0), 0.0).sum(-1)
        reward = (torch.from_numpy(batch.advantages_B)[:, None] * chosen_BU).mean()
        self._optimizer.zero_grad()
        loss = -reward - self._entropy_weight * entropy_BU.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._entropy_weight *= _FADE
        self._keep_arrays()

    def _keep_arrays(self) -> None:
        self._arrays = {name: parameter.detach().numpy().copy() for name, parameter in self._parameters.items()}


def draw(logits_C: npt.NDArray[np.float64], generator: np.random.Generator) -> int:
    """Draw an action; one of minus infinity is never drawn."""
    return int(np.argmax(logits_C + generator.gumbel(size=logits_C.shape)))
