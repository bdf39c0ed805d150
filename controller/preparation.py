"""What a job needs before its first trial: the model's units, the space, a latency table, and reachable bounds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.errors import PreflightError
from controller.job import JobSpec, Objective
from controller.latency_words import MARGIN_PCT, margin_of
from controller.tables.machine import with_kernels
from controller.tables.request import OnStage, TableRequest, check_available, profile_command
from controller.tables.trust import trust_notes
from evaluators.costs import CostModel, least_energy_mj, least_latency_ms, least_size_bytes
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import EnergyBasis, check_fingerprint, load_table
from evaluators.latency.workload import Operator, Workload
from evaluators.latency.workload import operators as policy_work
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace, build_space
from search_spaces.units import ModelStructure
from workers.model import load_structure
from workers.profiling.required import grid_operators, required_operators
from workers.protocol import WorkerSpec
from workers.targets import TARGETS, TargetConfig
from workers.targets.device import DEVICES
from workers.workload import WorkloadError, workload_of

# SQLAlchemy would say the same, and takes longer to import than all else that a plan does.
_SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is known of a job from its model's configuration alone.

    Attributes:
        spec: Settings of the workers; its table may not be measured yet.
        structure: Units of the model.
        space: What may be proposed.
        workload: Batch and tokens of one call.
        table: File of the latency table, whether or not it exists.
        job_words: Command line that measures what the job's file needs; empty where the job has none.
        job_out: The file that this command writes where it names none.
    """

    spec: WorkerSpec
    structure: ModelStructure
    space: SearchSpace
    workload: Workload
    table: Path
    job_words: tuple[str, ...] = ()
    job_out: Path | None = None

    def request(self, operators: tuple[Operator, ...], *, minutes: float | None = None) -> TableRequest:
        """Return what its table needs to have measured.

        Args:
            operators: What the table must answer for.
            minutes: Time for all of it, about; None has no limit.
        """
        return TableRequest(
            model=self.spec.model,
            target=self.spec.target,
            space=self.space,
            workload=self.workload,
            operators=operators,
            out=self.table,
            minutes=minutes,
            job_words=self.job_words,
            job_out=self.job_out,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedSpace:
    """A space whose every policy has a known cost.

    Attributes:
        description: Model, space and workload.
        costs: Exact costs of policies.
        table_checksum: Identity of the latency table.
        foreign: How the table's hardware differs from this machine's; empty where it is the same.
        measured_on: Device, runtime and threads of the table, in words.
        extrapolated: How many operators of the space lie outside what was measured.
        notes: What the profiler noted about the machine, and how far to trust energies.
    """

    description: Description
    costs: CostModel
    table_checksum: str
    foreign: tuple[str, ...]
    measured_on: str
    extrapolated: int
    notes: tuple[str, ...]

    @property
    def latency_margin_pct(self) -> float | None:
        """Per cent within which most measured times are expected; see `Correction.margin_pct`."""
        return margin_of(self.costs.predictor.correction)

    def fixed_content(self) -> dict[str, object]:
        """What a study keeps of its latencies, as JSON values."""
        return {
            "foreign_table": list(self.foreign),
            "extrapolated": self.extrapolated,
            MARGIN_PCT: self.latency_margin_pct,
        }


def work_folder(storage: str) -> Path:
    """Folder of whatever a study keeps beside its database: that of the SQLite file, else `.paretrim`."""
    file = _SQLITE_FILE.match(storage)
    if file is not None and file[1] != ":memory:":
        return Path(file[1]).absolute().parent
    return Path(".paretrim").absolute()


def describe(job: JobSpec) -> Description:
    """Describe a job without reading weights or measuring anything.

    Raises:
        ModelError: The model can't be read, or must not be.
        SpaceError: The space does not fit the model.
        WorkloadError: The workload does not fit the model.
        PreflightError: The job has no table, and its target is not available here; or a format is named that has no
            kernel on the device that latencies are for.
    """
    if job.target.table is None:
        check_available(job.target)
    structure = load_structure(job.model)
    workload = _workload(job, structure)
    folder = work_folder(job.storage)
    target = TARGETS.get(job.target.name)
    choices = with_kernels(job.space, job.target, structure)
    space = build_space(structure, choices, target_formats=target.formats, channel_multiple=target.channel_multiple)
    table = job.target.table or folder / "tables" / f"{_table_name(job.target, space, workload)}.json"
    spec = WorkerSpec(
        model=job.model,
        data=job.data,
        space=choices,
        target=job.target.model_copy(update={"table": table}),
        cache_dir=folder,
        quality=job.quality,
        seed=job.search.seed,
        threads=max(1, int(job.search.cpus_per_worker)),
    )
    return Description(
        spec=spec,
        structure=structure,
        space=space,
        workload=workload,
        table=table,
        job_words=job.origin.profile_words(job.model, job.target),
        job_out=table if job.origin.names_table(job.target.table) else None,
    )


def _workload(job: JobSpec, structure: ModelStructure) -> Workload:
    try:
        return workload_of(job.target, structure)
    except WorkloadError as error:
        raise WorkloadError(f"{job.origin.place_of('sequence_length', job.target)}{error}") from None


def price(job: JobSpec, description: Description, on_stage: OnStage) -> PricedSpace:
    """Load the job's latency table, or measure this machine's, and check it against space and constraints.

    Raises:
        TableError: The table can't be read.
        ForeignTableError: The table was measured on other hardware.
        MissingEntryError: The table lacks an operator that the space can reach.
        PreflightError: No policy meets the constraints.
    """
    if job.target.table is None:
        from controller.tables.measuring import measure_table

        operators = required_operators(description.space, description.workload)
        measure_table(description.request(operators), on_stage)
    priced = price_by_table(job, description)
    out_of_reach = unreachable(job, priced)
    if out_of_reach:
        raise PreflightError("no policy of the space meets the constraints: " + "; ".join(out_of_reach))
    return priced


def price_by_table(job: JobSpec, description: Description) -> PricedSpace:
    """Load the table of a job that has one; see `price`."""
    table = load_table(description.table)
    here = DEVICES.get(job.target.name)(job.target.threads).fingerprint()
    foreign = check_fingerprint(table, here, target=job.target.name, allow_foreign=job.target.allow_foreign_table)
    predictor = LatencyPredictor(
        table,
        description.workload,
        structure=description.structure,
        profile_command=profile_command(
            description.request(()), foreign=bool(foreign) or table.target != job.target.name
        ),
        allow_extrapolation=job.target.allow_extrapolation,
    )
    required = required_operators(description.space, description.workload)
    predictor.check(required)
    costs = CostModel(description.structure, predictor, TARGETS.get(job.target.name).memory_plan)
    return PricedSpace(
        description=description,
        costs=costs,
        table_checksum=table.checksum,
        foreign=tuple(foreign),
        measured_on=table.fingerprint.words,
        extrapolated=len(predictor.extrapolated(required)),
        notes=(
            *table.provenance.notes,
            *trust_notes(table, description.space, description.workload),
            *_energy_note(job, costs),
        ),
    )


def _energy_note(job: JobSpec, costs: CostModel) -> Iterator[str]:
    is_named = Objective.ENERGY_MJ in job.objectives or job.constraints.max_energy_mj is not None
    if is_named and costs.energy.basis is EnergyBasis.ESTIMATED:
        yield f"energies are estimated, by {costs.energy.source}; compare policies by them, not devices"


def grid_of(description: Description) -> tuple[Operator, ...]:
    """Operators of a table that serves any space of the model on the target."""
    target = TARGETS.get(description.spec.target.name)
    return grid_operators(
        description.structure,
        description.workload,
        formats=target.formats,
        channel_multiple=target.channel_multiple,
    )


def cheapest(priced: PricedSpace) -> tuple[float, int]:
    """Latency (ms) and size (bytes) that no policy of the space goes below, each for itself."""
    space = priced.description.space
    return least_latency_ms(space, priced.costs.predictor), least_size_bytes(space)


def unreachable(job: JobSpec, priced: PricedSpace) -> tuple[str, ...]:
    """Bounds that no policy meets, each with the nearest that can be had."""
    latency_ms, size = cheapest(priced)
    found = []
    bound_ms, bound_bytes = job.constraints.max_latency_ms, job.constraints.max_size_bytes
    if bound_ms is not None and latency_ms > bound_ms:
        found.append(f"max_latency_ms is {bound_ms:g}, and every policy takes at least {latency_ms:.4g} ms")
    if bound_bytes is not None and size > bound_bytes:
        found.append(f"max_size_bytes is {bound_bytes:,}, and the smallest policy has {size:,} bytes")
    return (*found, *_unreachable_energy_and_memory(job, priced))


def _unreachable_energy_and_memory(job: JobSpec, priced: PricedSpace) -> Iterator[str]:
    space, bounds = priced.description.space, job.constraints
    if bounds.max_energy_mj is not None:
        energy_mj = least_energy_mj(space, priced.costs.energy)
        if energy_mj > bounds.max_energy_mj:
            yield f"max_energy_mj is {bounds.max_energy_mj:g}, and every policy takes at least {energy_mj:.4g} mJ"
    if bounds.max_peak_memory_bytes is not None:
        yield from unreachable_memory(job, priced.costs.memory.least_bytes(space))


def unreachable_memory(job: JobSpec, least_bytes: int) -> tuple[str, ...]:
    """The bound on peak memory where no policy meets it.

    Args:
        job: The job.
        least_bytes: Peak that no policy of its space goes below.
    """
    bound = job.constraints.max_peak_memory_bytes
    if bound is None or least_bytes <= bound:
        return ()
    return (f"max_peak_memory_bytes is {bound:,}, and every policy holds {least_bytes:,} at least",)


def operators_of(policies: tuple[Policy, ...], description: Description) -> tuple[Operator, ...]:
    """Operators of some policies, without repeats."""
    found = {op for p in policies for op in policy_work(description.structure, p, description.workload)}
    return tuple(sorted(found, key=str))


def _table_name(target: TargetConfig, space: SearchSpace, workload: Workload) -> str:
    """A name that changes with all that the table depends on, so that a study's table never changes under it."""
    here = DEVICES.get(target.name)(target.threads).fingerprint()
    parts = (space.structure, space.unit_spaces, workload, here)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return f"{target.name}-{target.threads}t-{digest}"
