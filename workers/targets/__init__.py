"""Targets: a device with a runtime, the formats that have kernels there, and the workload to optimise for."""

from workers.targets.base import TARGETS, ExportForm, Target, TargetConfig

__all__ = ["TARGETS", "ExportForm", "Target", "TargetConfig"]
