"""What the command line and the Python interface offer. Importing this loads what is heavy."""

from controller.export import run_export
from controller.planning import plan
from controller.profiling import run_profile
from controller.search import run_search
from controller.sensitivity import run_sensitivity
from controller.study_summary import load_front
from controller.sweep import run_sweep

__all__ = ["load_front", "plan", "run_export", "run_profile", "run_search", "run_sensitivity", "run_sweep"]
