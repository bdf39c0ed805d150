"""What the command line and the Python interface offer. Importing this loads what is heavy."""

from controller.explanation.explain import run_explain
from controller.export import run_export
from controller.planning import plan
from controller.rechecking.model_check import run_model_check
from controller.registry.registration import run_promote, run_register, run_rollback
from controller.retargeting.retarget import run_retarget
from controller.retargeting.several_targets import run_search_on_all as run_search
from controller.sensitivity.sensitivity import run_sensitivity
from controller.sensitivity.sweep import run_sweep
from controller.study_summary import load_front
from controller.tables.profiling import run_calibration, run_profile, run_space_profile

__all__ = [
    "load_front",
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
