"""What Ray Tune runs in recovery: one training, a score at a time, with checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from search_spaces.policy import Policy
from workers.protocol import WorkerSpec
from workers.recover import RecoveryJob
from workers.recovery.config import RecoveryConfig
from workers.recovery.state import CHECKPOINT_NAME
from workers.trial import TrialWorker


class RecoveryTrial(Trainable):  # type: ignore[misc]  # ray is untyped
    """One training as a Tune trial: each step goes on to the next score."""

    def setup(
        self,
        config: Mapping[str, Any],
        spec: WorkerSpec | None = None,
        policy: Policy | None = None,
        configs: Sequence[RecoveryConfig] = (),
    ) -> None:
        """Build the worker and the training.

        Args:
            config: Holds the number of the training.
            spec: Settings of the worker.
            policy: What is trained.
            configs: All trainings.
        """
        assert spec is not None
        assert policy is not None
        self._trainer = RecoveryJob(TrialWorker(spec), policy, configs[config["number"]]).trainer()

    def step(self) -> dict[str, Any]:
        """Train until the model is scored next."""
        metric = self._trainer.run_to_evaluation()
        best, _ = self._trainer.counters.best
        return {"metric": metric, "best_metric": best, "done": self._trainer.finished}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write all that the training needs to go on with the same bits."""
        self._trainer.save(Path(checkpoint_dir) / CHECKPOINT_NAME)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on from a checkpoint."""
        self._trainer.load(Path(checkpoint) / CHECKPOINT_NAME)
