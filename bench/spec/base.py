"""Immutable values and their canonical JSON, the basis of all ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

T = TypeVar("T")
SCHEMA_VERSION = 1
"""Version of ``result.json`` and of the JSON that the commands print."""


def frozen(values: Mapping[str, T]) -> Mapping[str, T]:
    """Return a copy that cannot be changed."""
    return MappingProxyType(dict(values))


FrozenMapping = Annotated[Mapping[str, T], AfterValidator(frozen), PlainSerializer(dict)]
"""Type of a field with named values that cannot be changed."""


class Frozen(BaseModel):
    """Base of all values: immutable, without unknown fields, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WithoutDefaults(Frozen):
    """A value whose JSON leaves out fields that hold their default, so that a field that is added
    later leaves the ids of earlier runs as they were."""

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in handler(self).items()
            if fields[name].is_required()
            or getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces: the same text for equal values."""
    return _encode(value)


_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict
).encode


def canonical_hash(value: object) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def short_hash(value: object) -> str:
    """Return the first 12 hex digits of ``canonical_hash``."""
    return canonical_hash(value)[:12]
