"""The model card of an artifact: what it is, what was searched and what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from evaluators.latency.correction import CONFIDENCE
from search_spaces.policy import Policy
from search_spaces.units import ModelStructure
from workers.export.report import ExportReport
from workers.export.usage import Usage, render_usage
from workers.protocol import WorkerSpec
from workers.targets.base import ExportForm

_STRIP = 12
_MOST_CLASSES = 20


def render_card(
    report: ExportReport, *, spec: WorkerSpec, structure: ModelStructure, policy: Policy, command: str
) -> str:
    """Write the card as Markdown with the metadata block that model hubs read.

    Args:
        report: What was searched and measured.
        spec: Settings of the study's workers.
        structure: Units of the model.
        policy: The exported policy.
        command: Command that exports the artifact again.
    """
    parts = [
        _metadata(report, spec),
        f"# {_plain(_short(spec.model.id))}, compressed by Paretrim\n",
        _summary(report, spec),
        _table(report),
        *_recovery(report),
        *_early_exit(report),
        *_classes(report),
        "## Policy\n",
        "![What each unit keeps, and in which format](policy.svg)\n",
        _policy_table(structure, policy),
        "## How to run it\n",
        render_usage(_usage(report, spec, structure)),
        "## Files\n",
        _files(report),
        "## How it was made\n",
        f"```\n{command}\n```\n",
        f"Verified on {report.created} with {report.runtime}, {report.threads} "
        f"thread{'s' if report.threads > 1 else ''}, in a process of its own.\n",
    ]
    return "\n".join(parts)


def _usage(report: ExportReport, spec: WorkerSpec, structure: ModelStructure) -> Usage:
    return Usage(
        task=spec.model.task,
        target=report.target,
        form=report.form,
        batch=report.batch,
        threads=report.threads,
        longest=min(spec.data.max_length, structure.max_tokens or spec.data.max_length),
        has_processor=bool({"tokenizer_config.json", "preprocessor_config.json"} & report.files.keys()),
    )


def _metadata(report: ExportReport, spec: WorkerSpec) -> str:
    holdout = report.splits["holdout"]
    index = [
        {
            "name": _short(spec.model.id),
            "results": [
                {
                    "task": {"type": spec.model.task},
                    "dataset": {"name": _short(spec.data.source), "type": "local", "split": "holdout"},
                    "metrics": [{"type": report.metric, "value": round(holdout.metric, 6), "verified": False}],
                }
            ],
        }
    ]
    lines = {
        "base_model": _short(spec.model.id),
        "library_name": "onnx" if report.form is ExportForm.ONNX else "transformers",
        "pipeline_tag": spec.model.task,
        "tags": ["paretrim", "pruned", "quantized"],
        "model-index": index,
    }
    # JSON is YAML, and its quoting leaves nothing for a name to break out of.
    body = "\n".join(f"{key}: {json.dumps(value)}" for key, value in lines.items())
    return f"---\n{body}\n---\n"


def _summary(report: ExportReport, spec: WorkerSpec) -> str:
    holdout = report.splits["holdout"]
    dense_ms = report.dense_latency_measured_ms
    speed = (
        "" if dense_ms is None else f"{dense_ms / report.latency_measured_ms:.2f} times as fast as the dense model, "
    )
    lost = 100 * (report.dense_metric["holdout"] - holdout.metric)
    change = f"{abs(lost):.2f} points {'less' if lost >= 0 else 'more'} {report.metric}"
    foreign = ""
    if report.predicted_for is not None:
        foreign = (
            f"Predicted latencies hold on {_plain(report.predicted_for)}; the others were measured on the machine that "
            "exported it, and say nothing of that one.\n"
        )
    return (
        f"On {spec.target.name} it is {speed}{report.dense_size_bytes / report.size_file_bytes:.2f} times smaller, and "
        f"has {change} on {holdout.examples} holdout examples that the search never saw.\n{foreign}"
    )


def _table(report: ExportReport) -> str:
    search, holdout = report.splits["search"], report.splits["holdout"]
    fastest_ms = report.latency_undisturbed_ms
    undisturbed = "" if fastest_ms is None else f"undisturbed {fastest_ms:.3f}, "
    rows = [
        ("", "searched", "exported", "dense"),
        ("---", "---:", "---:", "---:"),
        (
            f"{report.metric}, search split ({search.examples})",
            f"{search.searched_metric:.4f}",
            f"{search.metric:.4f}",
            f"{report.dense_metric['search']:.4f}",
        ),
        (
            f"{report.metric}, holdout split ({holdout.examples})",
            f"{holdout.searched_metric:.4f}",
            f"{holdout.metric:.4f}",
            f"{report.dense_metric['holdout']:.4f}",
        ),
        (
            f"latency, ms (batch {report.batch}, {report.sequence_length} tokens)",
            f"{report.latency_predicted_ms:.3f} ({_latency_interval(report)})",
            f"{report.latency_measured_ms:.3f} ({undisturbed}p99 {report.latency_p99_ms:.3f})",
            "" if report.dense_latency_measured_ms is None else f"{report.dense_latency_measured_ms:.3f}",
        ),
        (
            "size, MB",
            f"{report.size_predicted_bytes / 1e6:.2f}",
            f"{report.size_file_bytes / 1e6:.2f}",
            f"{report.dense_size_bytes / 1e6:.2f}",
        ),
        (
            f"examples a second, {report.throughput.clients} clients at once",
            "",
            f"{report.throughput.examples_per_s:.0f} (p99 {report.throughput.p99_ms:.3f} ms)",
            "",
        ),
        ("memory to load and run it, MB", "", f"{report.loaded_bytes / 1e6:.0f}", ""),
        ("largest logit difference, holdout", "", f"{holdout.max_logit_difference:.4f}", ""),
        ("cosine of logits, holdout", "", f"{holdout.cosine:.5f}", ""),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _latency_interval(report: ExportReport) -> str:
    """How far the prediction errs; earlier reports without a correction have bounds that are the prediction."""
    low_ms, high_ms = report.latency_low_ms, report.latency_high_ms
    if low_ms is None or high_ms is None or low_ms == high_ms:
        return "error not measured"
    return f"{100 * CONFIDENCE:.0f} % interval {low_ms:.3f} to {high_ms:.3f}"


def _classes(report: ExportReport) -> list[str]:
    """The holdout class by class; of many classes only the ones that do worst."""
    if report.classes is None:
        return []
    found = sorted(report.classes.classes, key=lambda one: one.f1) if _too_many(report) else report.classes.classes
    lines = ["| class | precision | recall | F1 | examples |", "|---|---:|---:|---:|---:|"]
    for one in found[:_MOST_CLASSES]:
        lines.append(f"| {_cell(one.name)} | {one.precision:.4f} | {one.recall:.4f} | {one.f1:.4f} | {one.support} |")
    parts = ["## Holdout, class by class\n", "\n".join(lines) + "\n"]
    if _too_many(report):
        return [*parts, f"The {_MOST_CLASSES} worst of {len(found)} classes; `report.json` has all.\n"]
    names = [_cell(one.name) for one in found]
    head = ["| true class | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    rows = [
        f"| {name} | " + " | ".join(map(str, row)) + " |"
        for name, row in zip(names, report.classes.confusion, strict=True)
    ]
    return [*parts, "Answers by true class:\n", "\n".join([*head, *rows]) + "\n"]


def _too_many(report: ExportReport) -> bool:
    return report.classes is not None and len(report.classes.classes) > _MOST_CLASSES


def _files(report: ExportReport) -> str:
    lines = []
    if report.form is ExportForm.ONNX:
        own = ", ".join(f"`{name}`" for name in report.weights.runtime_operators)
        lines.append("`model.onnx`: the model, opset 20" + (f" with operators of ONNX Runtime: {own}" if own else ""))
    if report.folder_loader == "transformers":
        lines.append("`model.safetensors`: the model in the Hugging Face form; `from_pretrained` loads this folder")
    elif report.folder_loader == "paretrim":
        lines.append("`compressed.safetensors`: the model in the Hugging Face form; `paretrim.load` loads this folder")
    counted = ", ".join(f"{count} of {name}" for name, count in report.weights.quantized.items())
    lines += [
        "`policy.json`, `policy.svg`: the policy",
        "`report.json`: all figures",
        "configuration, and tokenizer or image processor",
    ]
    total = f"Counted from the files: {report.weights.bytes / 1e6:.2f} MB of tensors"
    return (
        "\n".join(f"- {line}" for line in lines)
        + f"\n\n{total}"
        + (f"; quantized layers: {counted}.\n" if counted else ", no quantized layers.\n")
    )


def _cell(text: str) -> str:
    return _plain(text).replace("|", "/")


def _recovery(report: ExportReport) -> list[str]:
    """What training did, before it and after, on both splits."""
    found = report.recovery
    if found is None:
        return []
    splits = "; ".join(f"{name} {found.before[name]:.4f} to {found.after[name]:.4f}" for name in found.after)
    return [
        "## Recovery\n",
        f"Trained for {found.best_step} of {found.steps} steps on {found.examples} examples, in the formats that ship: "
        f"{report.metric} as searched to {report.metric} as trained: {splits}.\n",
    ]


def _early_exit(report: ExportReport) -> list[str]:
    """Where examples leave, how many, and what that saves."""
    if report.early_exit is None:
        return []
    promise, found, whole = report.early_exit.forecast, report.early_exit.measured, report.early_exit.whole_metric
    searched, holdout = report.splits["search"], report.splits["holdout"]
    rows = [
        ("", "search split, by the table", "holdout split, measured"),
        ("---", "---:", "---:"),
        ("share that leaves early", f"{promise.share:.1%}", f"{found.shares['holdout']:.1%}"),
        (report.metric, f"{searched.metric:.4f}", f"{holdout.metric:.4f}"),
        (f"{report.metric} without the exit", f"{whole['search']:.4f}", f"{whole['holdout']:.4f}"),
        ("mean latency, ms", f"{promise.expected_ms:.3f}", f"{found.mean_ms:.3f}"),
        ("mean latency without the exit, ms", f"{promise.whole_ms:.3f}", f"{found.whole_mean_ms:.3f}"),
        (
            "mean latency of the dense model, ms",
            f"{report.dense_latency_predicted_ms:.3f}",
            f"{found.dense_mean_ms:.3f}",
        ),
    ]
    return [
        "## Early exit\n",
        f"An example leaves after block {promise.blocks_run} of {promise.blocks} (`{_plain(promise.block)}`) where the "
        f"classes there have an entropy of at most {promise.threshold_nats:.4f} nats. The exit was fitted to what the "
        f"model itself answers on {promise.fitted_examples} calibration examples, the threshold to the search split.\n",
        "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n",
        f"Measured over {found.examples} holdout examples as long as they are, one a call; the table's times are for "
        f"{report.sequence_length} tokens. Output `left_early` says whether a call left; a call of several examples "
        "leaves when all of them are clear. The latency further up is that of an example that goes through the whole "
        "model; the Hugging Face form has no exit.\n",
    ]


def _policy_table(structure: ModelStructure, policy: Policy) -> str:
    lines = ["| unit | keep | | format |", "|---|---:|---|---|"]
    for unit in structure.units:
        choice = policy[unit.name]
        filled = round(_STRIP * choice.keep / unit.groups)
        strip = "█" * filled + "·" * (_STRIP - filled)
        name = choice.format if choice.keep else "left out"
        lines.append(f"| {unit.name} | {choice.keep} of {unit.groups} | `{strip}` | {name} |")
    return "\n".join(lines) + "\n"


def _short(source: str) -> str:
    """A hub id as it is; of a path on some machine only the last part."""
    return Path(source).name if Path(source).is_absolute() or source.startswith(".") else source


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("`", "'").replace("<", "&lt;").replace("[", "(").replace("]", ")")
