"""ONNX Runtime's own quantizers, one format everywhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.contestant import Contestant, Side
from benchmarks.peers.material import Material

_W4_BLOCKS = (32, 128)
_ACCURACY_LEVEL_INT8 = 4


def dynamic_int8(material: Material) -> list[Contestant]:
    """Dynamic int8: signed weights, a scale for each channel, after the pre-processing that its docs recommend."""
    started = time.perf_counter()
    path = material.folder / "onnxruntime-int8.onnx"
    quantize_int8(material.stock, path)
    return [
        Contestant(
            name="onnxruntime int8", side=Side.PEER, path=path, made_in_s=round(time.perf_counter() - started, 1)
        )
    ]


def weights_4_bit(material: Material) -> list[Contestant]:
    """4-bit weights in blocks, matrix products in int8 (accuracy level 4).

    Blocks of 32 and of 128; and blocks of 32 with the embedding tables quantized too, which is smallest.
    """
    every = [_w4(material, f"onnxruntime w4 block {block}", block=block, op_types=("MatMul",)) for block in _W4_BLOCKS]
    return [*every, _w4(material, "onnxruntime w4 block 32, tables too", block=32, op_types=("MatMul", "Gather"))]


def quantize_int8(source: Path, path: Path) -> None:
    """Quantize an export to dynamic int8.

    Args:
        source: A float32 model.
        path: The file to write.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    with _quiet():
        # Symbolic shape inference does not get through this graph; its docs say to skip it then.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, path, per_channel=True, weight_type=QuantType.QInt8)
    prepared.unlink()


def _w4(material: Material, name: str, *, block: int, op_types: tuple[str, ...]) -> Contestant:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    started = time.perf_counter()
    path = material.folder / f"{name.replace(',', '').replace(' ', '-')}.onnx"
    with _quiet():
        quantizer = MatMulNBitsQuantizer(
            onnx.load(material.stock),
            bits=4,
            block_size=block,
            is_symmetric=True,
            accuracy_level=_ACCURACY_LEVEL_INT8,
            op_types_to_quantize=op_types,
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))
    return Contestant(name=name, side=Side.PEER, path=path, made_in_s=round(time.perf_counter() - started, 1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizers, which log each node."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
