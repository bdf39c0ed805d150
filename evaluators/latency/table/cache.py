"""How the time of products depends on where their weights come from: caches or memory."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from evaluators.latency.table.base import StoredRecord


class CacheCurve(StoredRecord):
    """Times of products of one format and number of tokens, by the weights that pass through the caches in a call."""

    format: str
    """Number format of the products."""
    tokens: PositiveInt
    """Rows that are multiplied in one product."""
    sizes_bytes: tuple[PositiveInt, ...] = Field(strict=False, min_length=2)
    """Working sets, rising: the weights of all products of a model."""
    times: tuple[Annotated[float, Field(gt=0)], ...] = Field(strict=False, min_length=2)
    """Time with each of these working sets, as a multiple of that with the last; nowhere falling."""

    @model_validator(mode="after")
    def _is_a_rising_curve(self) -> Self:
        if len(self.sizes_bytes) != len(self.times):
            raise ValueError(
                f"a cache curve has a time for each size; got {len(self.times)} for {len(self.sizes_bytes)}"
            )
        if any(low >= high for low, high in pairwise(self.sizes_bytes)):
            raise ValueError(f"sizes of a cache curve rise; got {list(self.sizes_bytes)}")
        if any(low > high for low, high in pairwise(self.times)):
            raise ValueError(f"times of a cache curve do not fall; got {list(self.times)}")
        return self
