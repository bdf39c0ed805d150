"""Says in which values two nested records of plain values differ."""

import json
from collections.abc import Iterator
from typing import Any

_MOST_SHOWN = 60


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield one line for each value that differs: where, before, now."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            inner = f"{path}.{key}" if path else str(key)
            if key not in before:
                yield f"{inner}: nothing before, now {_short(now[key])}"
            elif key not in now:
                yield f"{inner}: {_short(before[key])} before, now nothing"
            else:
                yield from differences(before[key], now[key], inner)
    elif before != now:
        yield f"{path}: {_short(before)} before, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."
