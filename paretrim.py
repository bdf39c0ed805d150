"""Paretrim's public face: load_job, search, front, pick, export, load, profile, retarget, explain, sensitivity, sweep.

`AutoCompressor` takes one mapping in place of a job file.

Importing this module checks that its four packages are the ones that lie beside it, and imports nothing heavy.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from controller.auto_compressor import AutoCompressor as AutoCompressor
    from controller.early_exit_options import EarlyExitOptions
    from controller.explanation.report import ExplainReport
    from controller.job import JobSpec
    from controller.recovery.options import RecoveryOptions
    from controller.registry.names import Registration
    from controller.results import ExportSummary, PickSummary, Progress, SearchResult
    from controller.retargeting.report import RetargetResult
    from controller.retargeting.target_change import TargetChange
    from controller.sensitivity.report import SensitivityReport
    from controller.sensitivity.sweep_report import SweepResult
    from controller.tables.results import ProfileSummary
    from workers.model import ModelConfig
    from workers.targets.base import TargetConfig

__all__ = [
    "AutoCompressor",
    "check_packages",
    "explain",
    "export",
    "front",
    "load",
    "load_job",
    "pick",
    "profile",
    "retarget",
    "search",
    "sensitivity",
    "sweep",
]

PACKAGES = ("controller", "workers", "evaluators", "search_spaces")


def check_packages() -> None:
    """Check that the four packages that Python finds are Paretrim's own.

    Raises:
        ImportError: One of them is missing, or another of that name comes first on the path; the message says which.
    """
    here = Path(__file__).resolve().parent
    for name in PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # something put a bare module of that name into sys.modules
            spec = None
        if spec is None:
            raise ImportError(
                f"Paretrim needs its package {name!r} beside {__file__}; Python finds none; install paretrim again",
                name=name,
            )
        found = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), "")).resolve()
        if found not in (here / name / "__init__.py", here / name):
            raise ImportError(
                f"Paretrim's package {name!r} must be {here / name}; Python finds {found}, which hides it; rename that "
                "one, or start Python from another folder",
                name=name,
                path=str(found),
            )


def load_job(path: str | Path) -> JobSpec:
    """Read and check a job file.

    Raises:
        controller.job.JobError: The file can't be read, or the job is not valid; lists all problems.
    """
    from controller.job_file import load_job as load

    return load(path)


def search(job: JobSpec | str | Path, *, on_progress: Callable[[Progress], None] | None = None) -> SearchResult:
    """Run a job, or continue it where it was stopped.

    Args:
        job: A job, or the path of a job file.
        on_progress: Called now and then with where the search stands.
    """
    from controller import operations

    spec = load_job(job) if isinstance(job, (str, Path)) else job
    return operations.run_search(spec, on_progress or _ignore)


def front(study: str, *, pick: str | None = None, storage: str | None = None) -> SearchResult:
    """Return the front of a study beside its baselines.

    Args:
        study: Name of the study: the job's name.
        pick: Rule that picks a member, in words ("weighted alpha=0.7"); the result says which and why.
        storage: Database URL; None takes the default file in the current folder.
    """
    from controller.job import DEFAULT_STORAGE, check_study_name

    name = check_study_name(study)
    from controller import operations

    return operations.load_front(name, storage or DEFAULT_STORAGE, pick=pick)


def pick(study: str, rule: str, *, storage: str | None = None) -> PickSummary:
    """Say which member of a study's front a rule picks, why, and what comes next.

    Args:
        study: Name of the study.
        rule: The rule in words: "fastest within 1% quality", "knee".
        storage: Database URL; None takes the default file in the current folder.

    Raises:
        ValueError: The rule can't be read, or nothing meets it.
    """
    found = front(study, pick=rule, storage=storage).picked
    assert found is not None
    return found


def export(
    study: str,
    *,
    out: str | Path,
    pick: str | None = None,
    trial: int | None = None,
    storage: str | None = None,
    recovery: RecoveryOptions | None = None,
    early_exit: EarlyExitOptions | None = None,
    registration: Registration | None = None,
) -> ExportSummary:
    """Export one policy of a study as a model, verify it, and register it if asked to.

    Args:
        study: Name of the study.
        out: Folder of the artifact.
        pick: What to take, in words: "fastest within 1% quality".
        trial: Number of a trial, in place of `pick`.
        storage: Database URL; None takes the default file in the current folder.
        recovery: How the model is trained first (`controller.recovery.options`); None exports what was searched.
        early_exit: Lets examples leave early whose class is clear by then (`controller.early_exit_options`); None lets
            none leave.
        registration: Where it is registered once it is verified (`controller.registry.names`); None leaves it a folder.

    Raises:
        controller.errors.UsageError: Not exactly one of `pick` and `trial` is given.
    """
    from controller.errors import UsageError
    from controller.job import DEFAULT_STORAGE, check_study_name

    if (pick is None) == (trial is None):
        raise UsageError('an export takes either pick or trial; for example pick="fastest within 1% quality"')
    name = check_study_name(study)
    from controller import operations

    return operations.run_export(
        name,
        storage or DEFAULT_STORAGE,
        pick=pick,
        trial=trial,
        out=Path(out),
        recovery=recovery,
        early_exit=early_exit,
        registration=registration,
    )


def load(folder: str | Path) -> nn.Module:
    """Load an exported model in evaluation mode, with the very arithmetic that was searched.

    Shapes and formats come from the file. Tokenizer or image processor lie beside it for transformers to load.

    Args:
        folder: What an export wrote in the Hugging Face form.

    Raises:
        workers.export.layer_forms.FolderError: It is not such a folder, is damaged, inconsistent or of another version.
        workers.model.ModelError: It holds code, or weights only as a pickle.
    """
    from workers.export.loading import load_folder

    return load_folder(Path(folder))


def profile(
    model: ModelConfig,
    target: TargetConfig,
    *,
    out: str | Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> ProfileSummary:
    """Measure the operators of a model on this machine and write them as a latency table.

    Args:
        model: The model.
        target: Runtime and workload.
        out: File to write.
        on_progress: Called now and then.
    """
    from controller import operations

    return operations.run_profile(model, target, Path(out), on_progress or _ignore)


def retarget(
    study: str,
    change: TargetChange,
    *,
    storage: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RetargetResult:
    """Return the front of a study on another target, from the scores that it has and a few more.

    Args:
        study: Name of the study.
        change: The other target, how many policies may be scored for it, and the name of the result.
        storage: Database URL; None takes the default file in the current folder.
        on_progress: Called now and then.
    """
    from controller.job import DEFAULT_STORAGE, check_study_name

    name = check_study_name(study)
    from controller import operations

    return operations.run_retarget(name, storage or DEFAULT_STORAGE, change, on_progress or _ignore)


def explain(
    study: str,
    *,
    trial: int,
    change: TargetChange | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
) -> ExplainReport:
    """Say where the time of a trial's policy goes, which choices buy no time, and which change would save most.

    Args:
        study: Name of the study.
        trial: Number of the trial; 0 is the dense model.
        change: Another table of the study's target; None takes the study's own.
        out: Folder for page, picture and JSON; None writes them beside the study's report.
        storage: Database URL; None takes the default file in the current folder.
    """
    from controller.job import DEFAULT_STORAGE, check_study_name
    from controller.retargeting.target_change import TargetChange

    name = check_study_name(study)
    from controller import operations

    return operations.run_explain(
        name,
        storage or DEFAULT_STORAGE,
        trial=trial,
        change=change or TargetChange(),
        out=None if out is None else Path(out),
    )


def sensitivity(
    job: JobSpec | str | Path,
    *,
    measure: bool = False,
    fisher: bool = False,
    out: str | Path | None = None,
    csv: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SensitivityReport:
    """Report what each unit loses when it alone is changed, from the probes of the job's study.

    Args:
        job: A job, or the path of a job file.
        measure: Whether changes that nobody scored are scored now, on a sixteenth of the search examples.
        fisher: Whether the Fisher information of each unit's weights is computed, where it was not yet.
        out: Folder for the report as CSV, JSON, page and picture; None for none.
        csv: File for the table alone; None for none.
        on_progress: Called now and then.
    """
    from controller import operations

    spec = load_job(job) if isinstance(job, (str, Path)) else job
    return operations.run_sensitivity(
        spec,
        on_progress or _ignore,
        measure=measure,
        fisher=fisher,
        out=None if out is None else Path(out),
        csv=None if csv is None else Path(csv),
    )


def sweep(
    job: JobSpec | str | Path,
    *,
    keep: Sequence[float],
    max_drop: float | None = None,
    format: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SweepResult:
    """Score uniform policies at some keep ratios, and say which lose no more quality than tolerated.

    Args:
        job: A job, or the path of a job file.
        keep: Shares of heads and channels that stay, above 0 to 1.
        max_drop: Tolerated loss, 0 to 1 (0.02 is two points); None takes the job's constraint, or 0.01.
        format: One number format for all; None takes the job's formats.
        on_progress: Called now and then.
    """
    from controller import operations

    spec = load_job(job) if isinstance(job, (str, Path)) else job
    return operations.run_sweep(spec, on_progress or _ignore, keep=keep, max_drop=max_drop, format=format)


def _ignore(progress: Progress) -> None:
    """Take progress and show nothing."""


def __getattr__(name: str) -> object:
    if name == "AutoCompressor":
        from controller.auto_compressor import AutoCompressor

        return AutoCompressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


check_packages()
