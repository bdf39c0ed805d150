"""The Ray that a search runs on: started, attached to, kept quiet, and left as it was found."""

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from controller.errors import PreflightError

_OBJECT_STORE_BYTES = 128 * 1024 * 1024
_ENVIRONMENT = {
    # Tune's loggers write every result to four files; nothing here reads them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # As many slots may wait for a place as there should be; the supply of slots knows how many.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A call that comes after the end of a search must not start another cluster.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Ray prints the end of workers to stdout, whatever is logged; the study reports failures.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}
# Despite its name: without this Ray turns 127.0.0.1 into the machine's own address and listens to the world.
_LOOPBACK_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """How workers are run.

    Attributes:
        parallel: Worker slots.
        cpus_per_worker: CPU cores that each reserves.
        gpus_per_worker: GPUs that each reserves; fractions share one.
        address: Ray cluster to attach to; None takes RAY_ADDRESS, or starts one on this machine.
        trial_timeout_s: Seconds that one evaluation may take; None for no limit.
        heartbeat_s: Seconds between a slot's signs of life; no more than a quarter of the grace time.
        grace_s: Seconds of silence after which a slot counts as dead.
        drain_s: Seconds that trials at work may take to finish once the search is told to stop.
    """

    parallel: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    address: str | None = None
    trial_timeout_s: float | None = None
    heartbeat_s: float = 5.0
    grace_s: float = 60.0
    drain_s: float = 120.0


@contextmanager
def ray_session(options: RayOptions) -> Iterator[None]:
    """Use the running Ray, attach to a cluster, or start one on this machine that listens on loopback only.

    Raises:
        PreflightError: No node can hold a worker.
    """
    address = options.address or os.environ.get("RAY_ADDRESS")
    environment = _ENVIRONMENT | ({} if address else _LOOPBACK_ENVIRONMENT)
    with _environment(environment), _quiet(), _connection(options, address):
        _check_fits(options)
        yield


@contextmanager
def _connection(options: RayOptions, address: str | None) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        ray.init(address=address, **quiet)
    else:
        # Without an address Ray would attach to whatever cluster somebody has started on this machine.
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(options.parallel * options.cpus_per_worker)),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _check_fits(options: RayOptions) -> None:
    """Refuse workers that no node can hold: Ray would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, needed in (("CPU", options.cpus_per_worker), ("GPU", options.gpus_per_worker)):
        largest = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if needed > largest:
            raise PreflightError(
                f"some node must hold a worker; it needs {needed:g} {name}, and the largest node has {largest:g}; "
                f"lower {name.lower()}s_per_worker or add a node"
            )


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables; Ray reads most of them when it is first imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Tune's own account of worker restarts off the screen; the study reports them."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first SIGINT or SIGTERM; the second SIGINT interrupts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
