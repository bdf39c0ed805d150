"""Layers with the kernels that torch has for NVIDIA GPUs, packed from the codes that the search computed with.

These are the kernels that torchao calls too; called here directly, they take the searched codes as they are.
Shape letters: R rows of the input, O output features, K input features, N blocks of K.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.export.torch_layers import REFUSED, FloatKernelLinear, Forms
from workers.quantization.codes import FLOAT8_MAX
from workers.quantization.float_linear import RoundedInt4Linear, RoundedLinear
from workers.quantization.row_linear import INT8_MAX, RowFloat8Linear, RowInt8Linear, row_scale

ALIGNMENT = 16
"""Rows and columns of 8-bit weights are multiples of this: cuBLAS and CUTLASS read 16 bytes at once."""
INT8_ROWS = 17
"""Fewest rows of an int8 product."""
INT4_COLUMNS, INT4_ROWS = 128, 8
"""Columns and rows of 4-bit weights are multiples of these: 8 tiles of 16 columns, and 8 rows a tile."""
_INNER_K_TILES = 8


class RowInt8KernelLinear(nn.Module):
    """int8 products on tensor cores, the input rounded with a scale for each row."""

    codes_OK: Tensor
    scale_O: Tensor
    bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, layer: RowInt8Linear) -> None:
        super().__init__()
        self.out_features = len(layer.codes_OK)
        self.register_buffer("codes_OK", _padded(layer.codes_OK, ALIGNMENT, ALIGNMENT))
        self.register_buffer("scale_O", layer.scale_O)
        self.register_buffer("bias_O", layer.bias_O)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        scale_R1 = row_scale(input, INT8_MAX)
        codes_RK = _wide((input / scale_R1).round_().to(torch.int8).flatten(0, -2), self.codes_OK.shape[1])
        rows = len(codes_RK)
        if rows < INT8_ROWS:
            codes_RK = nn.functional.pad(codes_RK, (0, 0, 0, 2 * ALIGNMENT - rows))
        sums_RO = torch._int_mm(codes_RK, self.codes_OK.t())[:rows, : self.out_features]
        scaled_RO = sums_RO.view(*input.shape[:-1], -1) * scale_R1 * self.scale_O
        return scaled_RO if self.bias_O is None else scaled_RO + self.bias_O


class RowFloat8KernelLinear(nn.Module):
    """e4m3 products on tensor cores with scales for rows of the input and of the weight; bfloat16 comes out."""

    codes_OK: Tensor
    scale_O: Tensor
    bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, layer: RowFloat8Linear) -> None:
        super().__init__()
        self.out_features = len(layer.codes_OK)
        # Padding is not implemented for float8; its bytes are padded: zero is zero in both.
        bytes_OK = _padded(layer.codes_OK.view(torch.uint8), ALIGNMENT, ALIGNMENT)
        self.register_buffer("codes_OK", bytes_OK.view(torch.float8_e4m3fn))
        missing = len(bytes_OK) - self.out_features
        self.register_buffer("scale_O", nn.functional.pad(layer.scale_O, (0, missing)))
        self.register_buffer("bias_O", None if layer.bias_O is None else nn.functional.pad(layer.bias_O, (0, missing)))

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        scale_R1 = row_scale(input, FLOAT8_MAX).flatten(0, -2)
        scaled_RK = _wide(input.flatten(0, -2) / scale_R1, self.codes_OK.shape[1])
        product_RO = torch._scaled_mm(
            scaled_RK.clamp_(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn),
            self.codes_OK.t(),
            scale_R1,
            self.scale_O[None, :],
            bias=self.bias_O,
            out_dtype=torch.bfloat16,
        )
        return product_RO[:, : self.out_features].to(input.dtype).view(*input.shape[:-1], -1)


class Int4KernelLinear(nn.Module):
    """4-bit weights that are expanded to bfloat16 within the product."""

    packed_weight: Tensor
    scale_offset_NO2: Tensor
    bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, layer: RoundedInt4Linear) -> None:
        super().__init__()
        self.out_features, self.block = len(layer.codes_OK), layer.block
        codes_OK = _padded(layer.codes_OK, INT4_ROWS, INT4_COLUMNS)
        self.in_features = codes_OK.shape[1]
        self.register_buffer(
            "packed_weight", torch._convert_weight_to_int4pack(pack_high_first(codes_OK), _INNER_K_TILES)
        )
        self.register_buffer("scale_offset_NO2", scales_and_offsets(layer, len(codes_OK), self.in_features))
        self.register_buffer("bias_O", layer.bias_O)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        input_RK = _wide(input.flatten(0, -2).bfloat16(), self.in_features)
        product_RO = torch._weight_int4pack_mm(input_RK, self.packed_weight, self.block, self.scale_offset_NO2)
        product = product_RO[:, : self.out_features].to(input.dtype).view(*input.shape[:-1], -1)
        return product if self.bias_O is None else product + self.bias_O


def pack_high_first(codes_OK: Tensor) -> Tensor:
    """Pack 4-bit codes in pairs, the first of them in the high half of the byte; shape (O, K / 2)."""
    return (codes_OK[:, 0::2] << 4) | codes_OK[:, 1::2]


def scales_and_offsets(layer: RoundedInt4Linear, rows: int, columns: int) -> Tensor:
    """Scale and offset of every block beside each other, bfloat16, shape (N, rows, 2), 0 in blocks that are padding."""
    pairs_ON2 = torch.stack([layer.scale_ON, layer.offset_ON], -1)
    missing = (0, 0, 0, columns // layer.block - pairs_ON2.shape[1], 0, rows - len(pairs_ON2))
    return nn.functional.pad(pairs_ON2, missing).transpose(0, 1).contiguous()


def _padded(codes_OK: Tensor, rows: int, columns: int) -> Tensor:
    """Add zero rows and columns up to the next multiples."""
    return nn.functional.pad(codes_OK, (0, -codes_OK.shape[1] % columns, 0, -len(codes_OK) % rows))


def _wide(input_RK: Tensor, columns: int) -> Tensor:
    missing = columns - input_RK.shape[1]
    return nn.functional.pad(input_RK, (0, missing)) if missing else input_RK


CUDA_FORMS: Forms = {
    **REFUSED,
    RoundedLinear: FloatKernelLinear,
    RowInt8Linear: RowInt8KernelLinear,
    RowFloat8Linear: RowFloat8KernelLinear,
    RoundedInt4Linear: Int4KernelLinear,
}
"""Layers for NVIDIA GPUs."""
