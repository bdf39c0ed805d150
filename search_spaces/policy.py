"""A policy: one choice for every unit, with canonical JSON and a digest as its identity."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

SCHEMA_VERSION = 1


class PolicyError(ValueError):
    """A policy's JSON is malformed, or the policy does not belong to the space."""


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """What happens to one unit.

    Attributes:
        keep: How many groups (heads, channels) stay; 0 leaves the residual branch out.
        format: Name of the number format of the unit's linear layers. With keep 0 nothing is left to
            quantize, so a space writes its base format there: equal models then have equal digests.
    """

    keep: int
    format: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A choice for every unit of a model.

    Attributes:
        choices: Unit name to choice; the order carries no meaning.
    """

    choices: Mapping[str, Choice]
    _digest: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", MappingProxyType(dict(sorted(self.choices.items()))))

    def __getitem__(self, unit: str) -> Choice:
        return self.choices[unit]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and dict(self.choices) == dict(other.choices)

    def __hash__(self) -> int:
        return hash(tuple(self.choices.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Policy, (dict(self.choices),))

    def replace(self, **changes: Choice) -> "Policy":
        """Return the policy with the choices of some units replaced (keywords by unit name: use ``**{...}``)."""
        unknown = changes.keys() - self.choices.keys()
        if unknown:
            raise PolicyError(f"the policy has no units {sorted(unknown)}; it has {sorted(self.choices)}")
        return Policy({**self.choices, **changes})

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, so that equal policies have equal text."""
        body = {
            "choices": {unit: {"format": c.format, "keep": c.keep} for unit, c in self.choices.items()},
            "schema_version": SCHEMA_VERSION,
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Policy":
        """Read what `to_json` wrote.

        Raises:
            PolicyError: Not JSON, another schema version, or a field that is missing, unknown or of a wrong type.
        """
        try:
            body = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise PolicyError(f"a policy is one JSON object; got {text[:80]!r} ({error})") from error
        if not isinstance(body, dict) or body.keys() != {"choices", "schema_version"}:
            raise PolicyError(f'a policy has the keys "choices" and "schema_version"; got {text[:80]!r}')
        if body["schema_version"] != SCHEMA_VERSION:
            raise PolicyError(
                f"this program reads policies of schema_version {SCHEMA_VERSION}; got {body['schema_version']!r}; "
                "use the paretrim release that wrote it"
            )
        if not isinstance(body["choices"], dict):
            raise PolicyError(f'"choices" maps units to choices; got {body["choices"]!r}')
        # A study reads thousands of policies: what they share is kept once.
        return cls({sys.intern(unit): _read_choice(unit, fields) for unit, fields in body["choices"].items()})

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        if not self._digest:
            object.__setattr__(self, "_digest", hashlib.sha256(self.to_json().encode()).hexdigest()[:16])
        return self._digest


def _read_choice(unit: str, fields: Any) -> Choice:
    if not isinstance(fields, dict) or fields.keys() != {"keep", "format"}:
        raise PolicyError(f'a choice has the keys "keep" and "format"; got {fields!r} for unit {unit!r}')
    keep, name = fields["keep"], fields["format"]
    if type(keep) is not int or keep < 0:
        raise PolicyError(f"keep is a count of groups, 0 or more; got {keep!r} for unit {unit!r}")
    if not isinstance(name, str):
        raise PolicyError(f"format is a name; got {name!r} for unit {unit!r}")
    return _shared_choice(keep, name)


@lru_cache(maxsize=65_536)
def _shared_choice(keep: int, name: str) -> Choice:
    return Choice(keep, name)
