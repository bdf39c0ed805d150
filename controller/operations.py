"""What the command line and the Python interface offer; each is imported when it is first asked for."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.comparison import compare_studies
    from controller.explanation.explain import run_explain
    from controller.export import run_export
    from controller.planning import plan
    from controller.policy_report import load_policy
    from controller.rechecking.model_check import run_model_check
    from controller.registry.registration import run_promote, run_register, run_rollback
    from controller.retargeting.retarget import run_retarget
    from controller.retargeting.several_targets import run_search_on_all as run_search
    from controller.search_result import load_front
    from controller.sensitivity.sensitivity import run_sensitivity
    from controller.sensitivity.sweep import run_sweep
    from controller.tables.profiling import run_calibration, run_profile, run_space_profile

_PLACES = {
    "compare_studies": "controller.comparison:compare_studies",
    "load_front": "controller.search_result:load_front",
    "load_policy": "controller.policy_report:load_policy",
    "plan": "controller.planning:plan",
    "run_calibration": "controller.tables.profiling:run_calibration",
    "run_explain": "controller.explanation.explain:run_explain",
    "run_export": "controller.export:run_export",
    "run_model_check": "controller.rechecking.model_check:run_model_check",
    "run_profile": "controller.tables.profiling:run_profile",
    "run_promote": "controller.registry.registration:run_promote",
    "run_register": "controller.registry.registration:run_register",
    "run_retarget": "controller.retargeting.retarget:run_retarget",
    "run_rollback": "controller.registry.registration:run_rollback",
    "run_search": "controller.retargeting.several_targets:run_search_on_all",
    "run_sensitivity": "controller.sensitivity.sensitivity:run_sensitivity",
    "run_space_profile": "controller.tables.profiling:run_space_profile",
    "run_sweep": "controller.sensitivity.sweep:run_sweep",
}

__all__ = [
    "compare_studies",
    "load_front",
    "load_policy",
    "plan",
    "run_calibration",
    "run_explain",
    "run_export",
    "run_model_check",
    "run_profile",
    "run_promote",
    "run_register",
    "run_retarget",
    "run_rollback",
    "run_search",
    "run_sensitivity",
    "run_space_profile",
    "run_sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found
