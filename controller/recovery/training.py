"""Recovery on Ray Tune: one policy trained with several learning rates and loss weights, the worse stopped early."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.ray_session import RayOptions, ray_session
from search_spaces.policy import Policy
from workers.protocol import WorkerSpec
from workers.recover import Recovered, RecoveryJob, recover
from workers.recovery.config import RecoveryConfig
from workers.recovery.layers import RecoveryError
from workers.recovery.state import CHECKPOINT_NAME
from workers.trial import TrialWorker

_REDUCTION = 3
_MOST_DEATHS = 3
OnProgress = Callable[[int, int], None]
"""(steps done, steps in all)"""


def run_recovery(
    worker: TrialWorker, policy: Policy, config: RecoveryConfig, *, tune: int = 1, on_progress: OnProgress | None = None
) -> Recovered:
    """Train a policy's model, here or, with several configurations, on Ray Tune; one that was trained before is read.

    Args:
        worker: Holds model, data and variants.
        policy: The policy.
        config: The training.
        tune: How many configurations to choose from by the search split, 1 or more; the first is `config`.
        on_progress: Told of each score of a training that runs here.

    Raises:
        RecoveryError: No training came to an end.
    """
    if tune == 1:
        return recover(worker, policy, config, on_progress)
    configs = candidates(config, tune)
    best, checkpoint = tune_recovery(worker.spec, policy, configs)
    job = RecoveryJob(worker, policy, configs[best])
    return job.stored() or job.keep(job.trainer(checkpoint))


def candidates(config: RecoveryConfig, count: int) -> list[RecoveryConfig]:
    """The training itself, then others with learning rates within a factor of 5 and loss weights within one of 3."""
    generator = random.Random(config.seed)

    def near(value: float, factor: float) -> float:
        return float(value * math.exp(generator.uniform(-1, 1) * math.log(factor)))

    others = [
        config.model_copy(
            update={
                "learning_rate": min(1.0, near(config.learning_rate, 5)),
                "alpha": near(config.alpha, 3),
                "beta": near(config.beta, 3),
                "gamma": near(config.gamma, 3),
            }
        )
        for _ in range(count - 1)
    ]
    return [config, *others]


def tune_recovery(
    spec: WorkerSpec, policy: Policy, configs: list[RecoveryConfig], options: RayOptions | None = None
) -> tuple[int, Path]:
    """Train with each configuration as a Tune trial under ASHA; go on where that was stopped.

    Args:
        spec: Settings of the workers.
        policy: What is trained.
        configs: The trainings.
        options: How many at a time, on what; None takes one worker.

    Returns:
        Number of the best configuration by the search split, and the checkpoint that holds its best state.

    Raises:
        RecoveryError: No training came to an end.
    """
    options = options or RayOptions(cpus_per_worker=spec.threads)
    identity = hashlib.sha256("".join([policy.digest, *(config.digest for config in configs)]).encode()).hexdigest()
    with ray_session(options):
        results = _fit(spec, policy, configs, options, f"recovery-{identity[:16]}")
        found = [result for result in results if result.metrics and "metric" in result.metrics and result.checkpoint]
        if not found:
            raise RecoveryError(
                f"some training must get a score; all {len(configs)} failed: {_why(results)}; run one without --tune"
            )
        best = max(found, key=lambda result: result.metrics["best_metric"])
        with best.checkpoint.as_directory() as folder:
            target = spec.cache_dir / "recovered" / f"{identity[:16]}.checkpoint"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((Path(folder) / CHECKPOINT_NAME).read_bytes())
        return int(best.config["number"]), target


def _fit(spec: WorkerSpec, policy: Policy, configs: list[RecoveryConfig], options: RayOptions, name: str) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from controller.recovery.trial import RecoveryTrial

    storage = spec.cache_dir / "recovery"
    trainable = tune.with_resources(
        tune.with_parameters(RecoveryTrial, spec=spec, policy=policy, configs=configs),
        {"cpu": options.cpus_per_worker, "gpu": options.gpus_per_worker},
    )
    if tune.Tuner.can_restore(str(storage / name)):
        return tune.Tuner.restore(str(storage / name), trainable, resume_unfinished=True, restart_errored=True).fit()
    rounds = configs[0].epochs * configs[0].evaluations
    scheduler = ASHAScheduler(time_attr="training_iteration", max_t=rounds + 1, reduction_factor=_REDUCTION)
    return tune.Tuner(
        trainable,
        param_space={"number": tune.grid_search(list(range(len(configs))))},
        tune_config=tune.TuneConfig(
            metric="metric", mode="max", scheduler=scheduler, max_concurrent_trials=options.parallel
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage.absolute()),
            failure_config=tune.FailureConfig(max_failures=_MOST_DEATHS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True, num_to_keep=1),
            verbose=0,
        ),
    ).fit()


def _why(results: Any) -> str:
    errors = [str(result.error).strip().splitlines()[-1] for result in results if result.error is not None]
    return errors[0] if errors else "no score was reported"
