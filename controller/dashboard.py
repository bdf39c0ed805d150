"""`paretrim dashboard`: a study rebuilt as an Optuna study in memory, and served by optuna-dashboard on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from socketserver import ThreadingMixIn
from typing import Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from controller.errors import UsageError
from controller.front import MAXIMISED, cost_value, cost_violations
from controller.job import Objective
from controller.storage.engine import open_existing
from controller.storage.records import TrialRecord, TrialRole, TrialState
from controller.storage.repository import Repository
from controller.study_memory import StudyMemory
from controller.study_summary import StudySummary, summarise
from search_spaces.space import FORMAT_SUFFIX, KEEP_SUFFIX

WsgiApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

HOST = "127.0.0.1"
_CONSTRAINTS = "constraints"
"""The system attribute that optuna-dashboard 0.21 tells feasible trials by; it does not read Optuna 5's own."""
_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAIL: OptunaState.FAIL,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.WAITING: OptunaState.WAITING,
}


def run_dashboard(study: str, storage: str, *, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve a study as it stands until Ctrl-C. What is changed on the page changes nothing in the database.

    Args:
        study: Name of the study.
        storage: URL of its database.
        port: Port on loopback, 1 to 65535; 0 takes a free one.
        on_ready: Told the address once it answers.

    Raises:
        UsageError: optuna-dashboard is not installed, there is no such study, or the port is taken.
    """
    make_app = _dashboard()
    copy = optuna_study(summarise(Repository(open_existing(storage)), study))
    try:
        server = make_server(HOST, port, _read_only(make_app(copy._storage)), _Server, _QuietHandler)
    except OSError as error:
        raise UsageError(
            f"the port must be free; {port} on {HOST} is not ({error}); choose another: --port N"
        ) from error
    with server:
        on_ready(f"http://{HOST}:{server.server_port}/dashboard/studies/{copy._study_id}")
        server.serve_forever()


def optuna_study(summary: StudySummary) -> optuna.Study:
    """Rebuild a study in memory, a trial for each row, with the same numbers.

    Probes are pruned ones there: on a few examples they would stand on the dashboard's front.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = summary.job.objectives
    memory = StudyMemory()
    study = optuna.create_study(
        storage=memory,
        study_name=summary.record.name,
        directions=["maximize" if objective in MAXIMISED else "minimize" for objective in objectives],
    )
    names = [summary.metric if objective is Objective.QUALITY else objective.value for objective in objectives]
    memory.set_study_system_attr(study._study_id, "study:metric_names", names)
    distributions = _distributions(summary)
    for trial in summary.trials:
        memory.create_new_trial(study._study_id, _frozen(summary, trial, distributions))
    return study


def _dashboard() -> Callable[[BaseStorage], WsgiApp]:
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UsageError(
            f"the dashboard needs the extra that brings optuna-dashboard ({error}): pip install 'paretrim[dashboard]'"
        ) from error
    make_app: Callable[[BaseStorage], WsgiApp] = wsgi
    return make_app


def _distributions(summary: StudySummary) -> dict[str, BaseDistribution]:
    """What every unit's keep and format are drawn from, as far as trials show it."""
    formats: dict[str, dict[str, None]] = {}
    most: dict[str, int] = {}
    for trial in summary.trials:
        for unit, choice in trial.policy.choices.items():
            formats.setdefault(unit, {})[choice.format] = None
            most[unit] = max(most.get(unit, 1), choice.keep)
    found: dict[str, BaseDistribution] = {}
    for unit, names in formats.items():
        found[unit + KEEP_SUFFIX] = IntDistribution(0, most[unit])
        found[unit + FORMAT_SUFFIX] = CategoricalDistribution(sorted(names))
    return found


def _frozen(summary: StudySummary, trial: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    is_probe = trial.role is TrialRole.PROBE and trial.state is TrialState.COMPLETE
    state = OptunaState.PRUNED if is_probe else _STATES[trial.state]
    found = create_trial(
        state=state,
        values=_values(summary, trial) if state is OptunaState.COMPLETE else None,
        user_attrs=_attributes(trial),
        system_attrs={_CONSTRAINTS: _violations(summary, trial)} if state is OptunaState.COMPLETE else {},
    )
    # Optuna would check each parameter of each trial, twice.
    found.params = {
        name: value
        for unit, choice in trial.policy.choices.items()
        for name, value in ((unit + KEEP_SUFFIX, choice.keep), (unit + FORMAT_SUFFIX, choice.format))
    }
    found.distributions = dict(distributions)
    found.datetime_start, found.datetime_complete = _local(trial.started), _local(trial.finished)
    return found


def _values(summary: StudySummary, trial: TrialRecord) -> list[float]:
    assert trial.quality is not None
    quality = trial.quality
    return [quality if o is Objective.QUALITY else cost_value(trial.costs, o) for o in summary.job.objectives]


def _violations(summary: StudySummary, trial: TrialRecord) -> list[float]:
    """How far each constraint is broken; 0 or less where it is met."""
    bounds = summary.job.constraints
    found = list(cost_violations(trial.costs, bounds).values())
    drop = bounds.max_quality_drop
    if drop is not None and trial.quality is not None and summary.dense is not None:
        found.append(summary.dense.quality - trial.quality - drop)
    return found


def _attributes(trial: TrialRecord) -> dict[str, Any]:
    found = {
        "name": trial.name,
        "role": trial.role.value,
        "policy": trial.policy.digest,
        "quality": trial.quality,
        "share of examples": trial.share if trial.quality is not None else None,
        "latency_ms": trial.costs.latency_ms,
        "size_bytes": trial.costs.size_bytes,
        "repeat of trial": trial.repeat_of,
        "failure": trial.message if trial.state is TrialState.FAIL else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _local(moment: datetime | None) -> datetime | None:
    """A moment as Optuna writes it: without a zone, in that of the machine."""
    return None if moment is None else moment.astimezone().replace(tzinfo=None)


def _read_only(app: WsgiApp) -> WsgiApp:
    """Refuse requests that change something, and those of pages that only pretend to be on this machine."""

    def guarded(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = str(environment.get("HTTP_HOST", "")).rpartition(":")[0]
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD") or host not in (HOST, "localhost"):
            start("403 Forbidden", [("Content-Type", "application/json")])
            return [b'{"reason": "this copy of the study can only be read, and only on this machine"}']
        return app(environment, start)

    return guarded


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""
