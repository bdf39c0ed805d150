"""Compresses a classifier from Python: `python -m examples.from_python MODEL ROWS OUT`."""

import sys

import paretrim


def compress(model: str, rows: str, out: str) -> None:
    """Search a model's policies, show the front, and export the best that loses five points at most."""
    columns = {"input": "sentence", "label": "label"}
    data = {"source": rows, "columns": columns, "calibration": 48, "search": 64, "holdout": 64}
    compressor = paretrim.AutoCompressor(
        {"model": model, "data": data, "target": "cpu-onnxruntime", "sequence_length": 16, "iterations": 8}
    )
    result = compressor.run()
    for row in result.front:
        print(f"{row.name}: {result.metric} {row.quality:.4f}, {row.latency_ms:.3g} ms, {row.size_bytes:,} bytes")
    print(paretrim.pick(compressor.job.name, "fastest within 5% quality").explanation)
    report = compressor.export(out, pick="fastest within 5% quality")
    print(f"verified: {report.metric} {report.exported_quality:.4f} at {report.measured_latency_ms:.3g} ms")


if __name__ == "__main__":
    compress(*sys.argv[1:])
