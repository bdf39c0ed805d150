"""Runs a search: Ray Tune runs the workers, the study runs the trials."""

import logging
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from controller.guard import evaluate_guarded
from controller.progress import StudyProgress
from controller.ray_session import RayOptions as RayOptions
from controller.ray_session import ray_session, stop_on_signals
from controller.service import BESIDE, SearchError, SlotProcess, Snapshot, StudyService, beside
from controller.study import Study
from workers.protocol import Worker

_logger = logging.getLogger(__name__)

_POLL_S = 0.25
OnProgress = Callable[[StudyProgress], None]


def search_inline(
    study: Study, worker: Worker, on_progress: OnProgress | None = None, stop: threading.Event | None = None
) -> StudyProgress:
    """Run a search in this process, one trial after another. A worker that hangs or dies takes the search with it.

    Args:
        study: What to search.
        worker: Who scores.
        on_progress: Called after each trial.
        stop: Set it to end the search after the trial at work.

    Returns:
        How far the study is at the end.

    Raises:
        ValueError: Somebody else holds attempts of the study, for which this search would wait for ever.
    """
    if study.running:
        raise ValueError(f"no attempt may be open when an inline search starts; got {study.running}; tell them first")
    try:
        study.keep()
        while not study.finished:
            study.heed()
            if stop is not None and stop.is_set():
                study.stop()
            for request in study.ask(1, worker="inline"):
                study.tell(evaluate_guarded(worker, request))
            if on_progress is not None:
                on_progress(study.progress())
    finally:
        study.close()
    return study.progress()


def search_on_ray(
    make_study: Callable[[], Study],
    make_worker: Callable[[], Worker],
    options: RayOptions,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> StudyProgress:
    """Run a search with workers in processes of their own.

    SIGINT and SIGTERM, and `stop` when it is set, end the search: nothing more is handed out, what is at work may
    finish, all is saved. A second SIGINT ends it at once; what was at work is then asked again by the next search.

    Args:
        make_study: Opens the study; runs in a process beside this one, so it must pickle, and so must its errors.
        make_worker: Builds a worker; runs in each worker process.
        options: How workers are run.
        on_progress: Called in this process a few times a second while something changes.
        stop: Set it to end the search.

    Returns:
        How far the study is at the end; its `stop` says why it ended.

    Raises:
        PreflightError: No node can hold a worker.
        SearchError: Ray failed. What was finished is in the database.
        Exception: Whatever opening the study raised, or what `Study.tell` says must end the search.
    """
    stop = stop or threading.Event()
    # Ray puts its own handler of SIGTERM in place of ours.
    with stop_on_signals(stop), ray_session(options), stop_on_signals(stop):
        service = _start_service(make_study, options)
        try:
            return _drive(service, make_worker, options, on_progress, stop)
        finally:
            import ray

            ray.kill(service)


def _drive(
    service: Any,
    make_worker: Callable[[], Worker],
    options: RayOptions,
    on_progress: OnProgress | None,
    stop: threading.Event,
) -> StudyProgress:
    """Watch over the search until Tune has ended all slots, then close the study."""
    from controller.slots import SlotSupply

    tune_error: list[BaseException] = []
    supply = SlotSupply(options.parallel)
    with tempfile.TemporaryDirectory(prefix="paretrim-tune-", ignore_cleanup_errors=True) as folder:
        slots = threading.Thread(
            target=_run_slots, args=(service, make_worker, options, supply, folder, tune_error), daemon=True
        )
        slots.start()
        last = None
        stop_by = math.inf
        while slots.is_alive() and time.monotonic() < stop_by:
            snapshot: Snapshot = _call(beside(service.snapshot))
            supply.wanted = snapshot.parallel or options.parallel
            if snapshot.finished:
                supply.end()
            for process in snapshot.condemned:
                _end_process(process)
            if on_progress is not None and snapshot.progress != last:
                on_progress(snapshot.progress)
                last = snapshot.progress
            if stop_by == math.inf and (stop.is_set() or snapshot.error is not None):
                _call(beside(service.stop), options.drain_s)
                stop_by = time.monotonic() + options.drain_s
            slots.join(_POLL_S)
    closed: Snapshot = _call(service.close)
    if closed.error is not None:
        raise closed.error
    if tune_error:
        raise SearchError(f"Ray Tune failed: {tune_error[0]}") from tune_error[0]
    if on_progress is not None:
        on_progress(closed.progress)
    return closed.progress


def _run_slots(
    service: Any,
    make_worker: Callable[[], Worker],
    options: RayOptions,
    supply: Any,
    folder: str,
    errors: list[BaseException],
) -> None:
    """Let Tune keep the slots running until each says that it is done."""
    from ray import tune

    from controller.slots import WorkerSlot

    try:
        slot = tune.with_parameters(
            WorkerSlot,
            service=service,
            make_worker=make_worker,
            trial_timeout_s=options.trial_timeout_s,
            heartbeat_s=min(options.heartbeat_s, options.grace_s / 4),
        )
        resources = {"cpu": options.cpus_per_worker, "gpu": options.gpus_per_worker}
        tune.Tuner(
            tune.with_resources(slot, resources),
            tune_config=tune.TuneConfig(search_alg=supply, num_samples=-1),
            run_config=tune.RunConfig(
                name="slots",
                storage_path=folder,
                # The study bounds how often a worker may die.
                failure_config=tune.FailureConfig(max_failures=-1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()
    except BaseException as error:
        errors.append(error)


def _start_service(make_study: Callable[[], Study], options: RayOptions) -> Any:
    """Start the study as an actor beside the driver, where the database's file is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, max_restarts=0, concurrency_groups={BESIDE: 1})(_ServiceActor)
    actor = remote.options(scheduling_strategy=here)
    service = actor.remote()
    error = _call(service.open, make_study, options.grace_s)
    if error is not None:
        raise error
    return service


class _ServiceActor(StudyService):
    """The service as an actor: the study is opened by a call, as an error of a constructor loses its type."""

    def __init__(self) -> None:
        """Wait for `open`."""

    def open(self, make_study: Callable[[], Study], grace_s: float) -> Exception | None:
        """Open the study; return what went wrong."""
        try:
            study = make_study()
            study.keep()
            super().__init__(study, grace_s=grace_s)
        except Exception as error:
            return error
        return None


def _call(method: Any, *arguments: Any) -> Any:
    """Call the service and wait for its answer."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(method.remote(*arguments))
    except RayTaskError as error:
        raise SearchError(f"the study service failed: {error.cause}") from error
    except RayActorError as error:
        raise SearchError(
            "the process that keeps the study has died (is memory short?); nothing that was finished is lost: "
            "run the search again"
        ) from error


def _end_process(process: SlotProcess) -> None:
    """End the process of a silent slot, on whatever node it is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    _logger.warning("process %d on node %s is silent and is ended", process.pid, process.node_id[:8])
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    ray.remote(num_cpus=0, max_retries=0)(_kill).options(scheduling_strategy=there).remote(process.pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
