"""The JSON Schemas of policies, hierarchies and exceptions, written from the tables of keys.

Draft 2020-12. They say what the loader checks of keys and types, for editors that
complete and underline; entries, places and everything between files only the loader checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aesp_proxy.decide.policy.field import Field, Form, Kind
from aesp_proxy.decide.policy.schema import HIERARCHY_VERSION, POLICY, VERSIONS
from aesp_proxy.decide.policy.schema_hierarchy import EXCEPTION, HIERARCHY
from aesp_proxy.decide.policy.selectors import ACTIONS

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> dict[str, Any]:
    """Return the schema of a policy."""
    return _top("A policy of aesp-proxy", POLICY, VERSIONS)


def hierarchy_schema() -> dict[str, Any]:
    """Return the schema of a hierarchy file."""
    return _top("A hierarchy of policies of aesp-proxy", HIERARCHY, (HIERARCHY_VERSION,))


def exception_schema() -> dict[str, Any]:
    """Return the schema of an exception."""
    return _top("An exception to a policy of aesp-proxy", EXCEPTION, ())


def _top(title: str, keys: Mapping[str, Field], versions: tuple[str, ...]) -> dict[str, Any]:
    schema = {"$schema": _DIALECT, "title": title, **_object(keys)}
    if versions:
        schema["properties"]["version"] = {
            "description": keys["version"].text,
            "enum": list(versions),
        }
    return schema


def _object(keys: Mapping[str, Field]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(field) for name, field in keys.items()},
    }
    required = [name for name, field in keys.items() if field.required]
    return {**made, "required": required} if required else made


def _field(field: Field) -> dict[str, Any]:
    told = field.text
    if field.form is not Form.FREE:
        told += f" Each is {field.form.value}." if field.kind is Kind.TEXTS else ""
    if field.default and field.kind is not Kind.TEXTS:
        told += f" Default: {field.default}."
    if field.not_enforced:
        told += f" It {field.not_enforced}."
    return {"description": told.strip(), **_type(field)}


def _type(field: Field) -> dict[str, Any]:
    # A scalar that is no text in JSON is one in YAML, where it stands for a text.
    text = {"type": ["string", "number", "boolean"]}
    match field.kind:
        case Kind.FLAG:
            return {"type": "boolean"}
        case Kind.TEXT:
            return text
        case Kind.CHOICE:
            return {"enum": list(field.choices)}
        case Kind.COUNT:
            return {"type": "integer", "minimum": 0, "maximum": field.count_max}
        case Kind.RATIO:
            return {"type": "number", "minimum": 0}
        case Kind.TEXTS if field.form is Form.ACTION:
            return {"type": "array", "items": {"enum": [*ACTIONS, "http.*", "file.*", "*"]}}
        case Kind.TEXTS:
            return {"type": "array", "items": text}
        case Kind.TABLE:
            return _object(field.keys)
        case Kind.TABLES:
            return {"type": "array", "items": _object(field.keys)}
        case Kind.ANY:
            return {}
        case Kind.PAIRS:
            return {"type": "object", "additionalProperties": text}
