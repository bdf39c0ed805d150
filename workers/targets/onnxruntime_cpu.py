"""ONNX Runtime on this machine's CPU: fingerprint, sessions, and the times of operators and of whole models."""

import math
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.latency.table import Fingerprint
from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.formats import FORMATS
from workers.targets.device import DEVICES

if TYPE_CHECKING:
    import numpy.typing as npt

TELLING_FLAGS = re.compile(r"avx\w*|amx\w*|fma|f16c|sse4_2|neon|asimd\w*|sve\w*|i8mm|bf16")
"""Instruction sets by which kernels are chosen; other flags change with the kernel of the operating system."""
TARGET_WEIGHT_BYTES = 8 * 2**20
"""Weights of all copies together, about."""
MAX_WORKING_SET_BYTES = 128 * 2**20
"""More than this is in memory whatever the model's size."""
MAX_COPIES = 16
COPIES_MULTIPLICATIONS = 2 * 10**8
"""Multiplications of all copies together, at most: beyond this a call's own cost no longer matters."""
SAMPLE_SECONDS = 0.25
"""After this time no further run of a sample starts."""
WEIGHTED = (OperatorKind.LINEAR, OperatorKind.EMBEDDING, OperatorKind.CONVOLUTION, OperatorKind.DEPTHWISE)
WARM_UP_RUNS = 3
MIN_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingStats:
    """Times of repeated runs of a whole model.

    Attributes:
        median_ms: Median time of a run.
        p99_ms: 99th percentile.
        spread_ms: Interquartile range.
        repeats: Timed runs.
    """

    median_ms: float
    p99_ms: float
    spread_ms: float
    repeats: int


def cpu_model() -> tuple[str, tuple[str, ...]]:
    """Return the CPU's name and the sorted instruction sets that kernels are chosen by."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), ()
    fields: dict[str, str] = dict(re.findall(r"^([^\n:]+?)[ \t]*:[ \t]*(.*)$", text.split("\n\n")[0], re.MULTILINE))
    name = fields.get("model name") or fields.get("CPU part") or platform.machine()
    # Virtual machines cut the name ("AMD EPYC"): family and model tell generations apart.
    family = "/".join(fields[key] for key in ("cpu family", "model", "CPU implementer", "CPU variant") if key in fields)
    flags = fields.get("flags", fields.get("Features", "")).split()
    return f"{name.strip()} ({family})", tuple(sorted({flag for flag in flags if TELLING_FLAGS.fullmatch(flag)}))


def fingerprint(threads: int) -> Fingerprint:
    """Return the fingerprint of this machine with a number of threads; the runtime itself is not loaded."""
    device, flags = cpu_model()
    return Fingerprint(
        device=device,
        flags=flags,
        runtime="onnxruntime",
        runtime_version=version("onnxruntime"),
        threads=threads,
        os=f"{platform.system()} {platform.machine()}",
    )


def open_session(model: bytes | str | Path, *, threads: int, operator_only: bool = False) -> Any:
    """Open an inference session as a deployed model is run: sequential executor, pinned number of threads.

    Args:
        model: Serialised model or its path.
        threads: Threads of one operator.
        operator_only: Keep equal nodes apart, which a graph of copies needs; a model is run with all optimisations.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else os.fspath(model),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["CommonSubexpressionElimination"] if operator_only else None,
    )


def time_runs(
    session: Any, feeds: Mapping[str, "npt.NDArray[Any]"], *, runs: int, limit_s: float = 10, displaced_bytes: int = 0
) -> "npt.NDArray[np.float64]":
    """Time a session, inputs and outputs bound beforehand.

    Args:
        session: Open inference session.
        feeds: Inputs by name.
        runs: Timed runs after the warm-up.
        limit_s: After this time no further run starts, once there are three.
        displaced_bytes: Other data that is read before each run, outside the measured time, and displaces the weights
            from caches of that size.

    Returns:
        Milliseconds of each run, (runs,) or fewer.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(value))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    displaced = np.ones(displaced_bytes // 8, np.int64)
    for _ in range(WARM_UP_RUNS):
        session.run_with_iobinding(binding)
    elapsed_ns: list[int] = []
    end_ns = time.perf_counter_ns() + int(limit_s * 1e9)
    while len(elapsed_ns) < runs and (len(elapsed_ns) < MIN_RUNS or time.perf_counter_ns() < end_ns):
        displaced.sum()
        start = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        elapsed_ns.append(time.perf_counter_ns() - start)
    return np.array(elapsed_ns) / 1e6


def time_session(
    model: bytes | str | Path, feeds: Mapping[str, "npt.NDArray[Any]"], *, threads: int, repeats: int = 100
) -> TimingStats:
    """Time a whole model.

    Args:
        model: Serialised model or its path.
        feeds: Inputs by name.
        threads: Threads of the runtime.
        repeats: Timed runs after the warm-up.
    """
    return summarise(time_runs(open_session(model, threads=threads), feeds, runs=repeats, limit_s=60))


def summarise(times_ms: "npt.NDArray[np.float64]") -> TimingStats:
    """Summarise times, (runs,) in ms."""
    low, median, high, p99 = (float(x) for x in np.percentile(times_ms, [25, 50, 75, 99]))
    return TimingStats(median_ms=median, p99_ms=p99, spread_ms=high - low, repeats=len(times_ms))


def weight_bytes(operator: Operator) -> int:
    """Bytes of weights that one copy of an operator reads, 0 where it has none worth counting."""
    if operator.kind is OperatorKind.LINEAR:
        number_format = FORMATS.get(str(operator.format))
        return number_format.weight_bytes(operator.axis("out_features"), operator.axis("in_features"))
    if operator.kind is OperatorKind.EMBEDDING:
        number_format = FORMATS.get(operator.format or "fp32")
        return number_format.weight_bytes(operator.axis("rows"), operator.axis("features"))
    if operator.kind is OperatorKind.CONVOLUTION:
        columns = operator.axis("in_channels") * operator.axis("kernel") ** 2
        return FORMATS.get(str(operator.format)).weight_bytes(operator.axis("out_channels"), columns)
    return 0


def copies_of(operator: Operator) -> int:
    """How many copies of an operator stand in its graph."""
    weight = weight_bytes(operator)
    if weight == 0:
        return MAX_COPIES
    copies = min(MAX_COPIES, TARGET_WEIGHT_BYTES // weight)
    if operator.kind is OperatorKind.EMBEDDING:
        return max(1, copies)
    if operator.kind is OperatorKind.CONVOLUTION:
        axes = ["batch", "height", "width", "in_channels", "out_channels", "kernel", "kernel"]
    else:
        axes = ["tokens", "in_features", "out_features"]
    return max(2, min(copies, COPIES_MULTIPLICATIONS // math.prod(operator.axis(a) for a in axes)))


class OnnxRuntimeCpu:
    """Times operators with ONNX Runtime.

    An operator stands in its graph several times, side by side, so that the cost of a call is spread and the weights
    come from memory as in a model; the time of a call that does nothing is taken off.

    Args:
        threads: Threads of the runtime.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of this machine."""
        return fingerprint(self.threads)

    def clocks(self) -> str | None:
        """Return the frequency governor and the present clock where the system tells them."""
        folder = Path("/sys/devices/system/cpu/cpu0/cpufreq")
        try:
            governor = (folder / "scaling_governor").read_text(encoding="ascii").strip()
            kilohertz = int((folder / "scaling_cur_freq").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return f"governor {governor}, {kilohertz // 1000} MHz"

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> tuple[float, ...]:
        """Time an operator in a fresh session; see `Device.sample`."""
        copies = copies_of(operator)
        displaced_bytes = 0
        if operator.kind in WEIGHTED:
            displaced_bytes = max(0, min(working_set_bytes, MAX_WORKING_SET_BYTES) - copies * weight_bytes(operator))
        call_ms = float(np.median(self._time(None, 0, runs, seed, displaced_bytes)))
        times_ms = self._time(operator, copies, runs, seed, displaced_bytes)
        # A call's cost varies by itself: what is left of a tiny operator must not become zero or negative.
        return tuple(float(max(t - call_ms, 0.05 * t) / copies) for t in times_ms)

    def _time(
        self, operator: Operator | None, copies: int, runs: int, seed: int, displaced_bytes: int
    ) -> "npt.NDArray[np.float64]":
        from workers.targets.onnxruntime_graphs import build_graph

        model, feeds = build_graph(operator, copies=copies, seed=seed)
        session = open_session(model, threads=self.threads, operator_only=True)
        return time_runs(session, feeds, runs=runs, limit_s=SAMPLE_SECONDS, displaced_bytes=displaced_bytes)


DEVICES.register("cpu-onnxruntime")(OnnxRuntimeCpu)
