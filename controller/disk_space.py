"""Room on the disk for what a search writes, looked for before it begins."""

import shutil
from pathlib import Path

from controller.errors import PreflightError
from search_spaces.formats import FORMATS
from search_spaces.space import SearchSpace

_RESERVE_BYTES = 64 * 1024 * 1024
"""For the database, reports and temporary files."""
_VARIANTS = "variants"


def variant_bytes(space: SearchSpace) -> int:
    """Bytes of the weights of every unit under every choice, which are made once and kept."""
    dense = space.dense_policy()
    return sum(
        FORMATS.get(choice.format).weight_bytes(rows, columns)
        for unit_space in space.unit_spaces
        for choice in space.choices(unit_space.unit.name)
        if choice != dense[unit_space.unit.name]
        for _, rows, columns in unit_space.unit.layer_shapes(choice.keep)
    )


def check_disk_space(folder: Path, space: SearchSpace) -> None:
    """Refuse to begin a search that the disk has no room for.

    Args:
        folder: Where variants are kept; it may not exist yet.
        space: The search space.

    Raises:
        PreflightError: Less is free than the variants take, those that are there apart.
    """
    made = sum(path.stat().st_size for path in (folder / _VARIANTS).rglob("*") if path.is_file())
    needed = _RESERVE_BYTES + max(0, variant_bytes(space) - made)
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise PreflightError(
            f"a search needs room for what it makes; {str(folder)!r} needs {needed / 1e6:,.0f} MB, and its disk has "
            f"{free / 1e6:,.0f} MB free; make room, offer fewer choices, or keep `storage` on another disk"
        )
