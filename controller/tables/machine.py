"""What a machine can measure: the formats that its device has kernels for, and threads that have a CPU each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.errors import PreflightError
from controller.tables.request import TableRequest
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.table import Fingerprint, load_table
from evaluators.latency.workload import Operator
from search_spaces.formats import FORMATS
from search_spaces.space import SpaceConfig
from search_spaces.units import ModelStructure
from workers.profiling.required import required_operators
from workers.profiling.threads import usable_cpus
from workers.targets import TARGETS, Target, TargetConfig
from workers.targets.cpu import CpuDevice
from workers.targets.device import DEVICES


def lacking_formats(target: TargetConfig) -> Mapping[str, str]:
    """Return the target's formats without a kernel on the device that latencies are for, each with the reason.

    That device is the one of the target's table where there is such a file, so that a space is the same on every
    machine, and else this machine's. Formats that the table has rows of are never lacking.

    Raises:
        TableError: The table can't be read.
    """
    known = TARGETS.get(target.name)
    if known.lacking is None:
        return {}
    if target.table is None or not target.table.exists():
        return _lacking(known, _here(target))
    table = load_table(target.table)
    timed = {entry.operator.format for entry in table.entries}
    return {name: why for name, why in _lacking(known, table.fingerprint).items() if name not in timed}


def lacking_here(target: Target) -> Mapping[str, str]:
    """Return a target's formats without a kernel on this machine's device, each with the reason.

    Nothing is lacking where the target can't be timed here at all, whatever its formats.
    """
    if target.lacking is None or target.available() is not None:
        return {}
    return _lacking(target, DEVICES.get(target.name)(1).fingerprint())


def formats_here(target: TargetConfig) -> tuple[str, ...]:
    """Return the target's formats with a kernel on this machine's device, in the target's order."""
    known = TARGETS.get(target.name)
    lacking = _lacking(known, _here(target))
    return tuple(name for name in known.formats if name not in lacking)


def usable_formats(target: TargetConfig) -> tuple[str, ...]:
    """Return the target's formats with a kernel on the device that latencies are for; see `lacking_formats`."""
    lacking = lacking_formats(target)
    return tuple(name for name in TARGETS.get(target.name).formats if name not in lacking)


def with_kernels(space: SpaceConfig, target: TargetConfig, structure: ModelStructure) -> SpaceConfig:
    """Return declared choices with formats named where some have no kernel on the device that latencies are for.

    Args:
        space: The declared choices; where they name no formats, those with kernels are meant.
        target: Target and table.
        structure: Units of the model; formats that fit none of them are not named.

    Raises:
        PreflightError: A format is named that has no kernel there.
        TableError: The table can't be read.
    """
    lacking = lacking_formats(target)
    if not lacking:
        return space
    formats = [name for name in TARGETS.get(target.name).formats if name not in lacking]
    for declared in (space.formats, *(override.formats for override in space.override)):
        for name in declared or ():
            if name in lacking:
                raise PreflightError(
                    f"space: formats have kernels on the device that latencies are for; {name!r} has none: "
                    f"{lacking[name]}; choose from {', '.join(formats)}, or plan with a table from elsewhere "
                    "(target.table)"
                )
    if space.formats is not None:
        return space
    types = {unit.layer_type for unit in structure.units}
    fitting = tuple(name for name in formats if types & set(FORMATS.get(name).layer_types))
    return space.model_copy(update={"formats": fitting or (structure.base_format,)})


def check_measurable(request: TableRequest) -> None:
    """Check that this machine can measure what a table is asked for and lacks, before any of it is measured.

    Raises:
        PreflightError: A format has no kernel here, or the runtime has more threads than there are CPUs for it.
        TableError: The table can't be read.
    """
    target = request.target
    wanted = (*request.operators, *required_operators(request.space, request.workload))
    if _answers(request, wanted):
        return
    check_threads(target)
    lacking = _lacking(TARGETS.get(target.name), _here(target))
    if lacked := sorted(lacking.keys() & {operator.format for operator in wanted}):
        name = lacked[0]
        raise PreflightError(
            f"a table is measured in formats with kernels on this machine; {name!r} has none: "
            f"{lacking[name]}; set space.formats to some of {', '.join(formats_here(target))}, or take "
            "a model in one of these"
        )


def check_threads(target: TargetConfig) -> None:
    """Check that every thread of a runtime on the CPU has a CPU of its own here.

    Raises:
        PreflightError: There are more threads.
    """
    if isinstance(DEVICES.get(target.name)(target.threads), CpuDevice) and target.threads > usable_cpus():
        raise PreflightError(
            f"threads of a CPU runtime have a CPU each while they are timed; got {target.threads} threads, and this "
            f"process may use {usable_cpus()} CPUs; take fewer (target.threads, --threads), measure where there are as "
            "many, or plan with a table from there (target.table)"
        )


def _answers(request: TableRequest, operators: Iterable[Operator]) -> bool:
    """Whether the file knows all of it already, and no more need be measured."""
    if not request.out.exists():
        return False
    table = load_table(request.out)
    try:
        LatencyPredictor(table, request.workload).check(operators)
    except MissingEntryError:
        return False
    return table.correction(request.workload, request.space.structure) is not None


def _here(target: TargetConfig) -> Fingerprint:
    return DEVICES.get(target.name)(target.threads).fingerprint()


def _lacking(target: Target, mark: Fingerprint) -> Mapping[str, str]:
    """Formats that the target lists and the device lacks."""
    found = {} if target.lacking is None else target.lacking(mark)
    return {name: why for name, why in found.items() if name in target.formats}
