"""What every noun is made of: immutable values, and their canonical text."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
"""Version of ``result.json`` and of the JSON that the commands print."""


class Frozen(BaseModel):
    """A value: immutable, and it refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_hash(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
