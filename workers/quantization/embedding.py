"""An embedding table of int8 rows. Shape letters: R rows, K features, S ids of any shape."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from search_spaces.formats import Format


class Int8RowsEmbedding(nn.Module):
    """A table of int8 rows with a scale each: rows are looked up as codes, then scaled.

    Args:
        codes_RK: Symmetric int8 codes.
        scale_R1: Scale of each row, float32.
    """

    codes_RK: Tensor
    scale_R1: Tensor

    def __init__(self, codes_RK: Tensor, scale_R1: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes_RK", codes_RK)
        self.register_buffer("scale_R1", scale_R1)

    def forward(self, input: Tensor) -> Tensor:
        """Look up; ids of shape (S) to (S, K)."""
        codes = nn.functional.embedding(input, self.codes_RK)
        return codes.to(self.scale_R1.dtype) * nn.functional.embedding(input, self.scale_R1)


def make_embedding(tensors: Mapping[str, Tensor], target: Format) -> nn.Module:
    """Build the table of a format from its stored tensors.

    Args:
        tensors: "weight", or "codes" and "scale".
        target: The format.
    """
    if not target.is_quantized:
        rows, features = tensors["weight"].shape
        table = nn.Embedding(rows, features, device="meta")
        table.weight = nn.Parameter(tensors["weight"], requires_grad=False)
        return table
    return Int8RowsEmbedding(tensors["codes"], tensors["scale"])
