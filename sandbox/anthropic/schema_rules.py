"""What the API holds a schema of structured output to; everything else it refuses with a 400."""

from __future__ import annotations

from typing import Any

_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_UNSUPPORTED = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": ("maxItems", "uniqueItems", "contains", "prefixItems"),
    "object": ("minProperties", "maxProperties", "patternProperties", "propertyNames"),
}
_DEEPEST = 50


def first_violation(schema: Any, depth: int = 0) -> str | None:
    """What is wrong with a schema, in the words of the API's error, or None."""
    if not isinstance(schema, dict):
        return "Input should be a valid dictionary"
    if depth > _DEEPEST:
        return "Schema is nested too deeply"
    if "$ref" in schema or "$defs" in schema or "definitions" in schema:
        return "'$ref' and '$defs' are not supported"
    if options := [option for name in ("anyOf", "allOf") for option in _list(schema, name)]:
        return next((wrong for option in options if (wrong := first_violation(option, depth + 1))), None)
    return None if "enum" in schema or "const" in schema else _wrong_type(schema, depth)


def _wrong_type(schema: dict[str, Any], depth: int) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((wrong for one in kind if (wrong := first_violation({**schema, "type": one}, depth + 1))), None)
    if not isinstance(kind, str) or kind not in _TYPES:
        return f"Schema type '{kind}' is not supported"
    if unsupported := [name for name in _UNSUPPORTED.get(kind, ()) if name in schema]:
        return f"For '{kind}' type, properties {', '.join(unsupported)} are not supported"
    if kind == "object":
        return _wrong_object(schema, depth)
    return _wrong_array(schema, depth) if kind == "array" else None


def _list(schema: dict[str, Any], name: str) -> list[Any]:
    value = schema.get(name, [])
    return value if isinstance(value, list) else []


def _wrong_object(schema: dict[str, Any], depth: int) -> str | None:
    if schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return "For 'object' type, 'properties' must be a dictionary"
    missing = sorted(set(properties) - set(_list(schema, "required")))
    if missing:
        return f"For 'object' type, every property must be required; missing: {', '.join(missing)}"
    return next((wrong for inner in properties.values() if (wrong := first_violation(inner, depth + 1))), None)


def _wrong_array(schema: dict[str, Any], depth: int) -> str | None:
    if schema.get("minItems", 0) not in (0, 1):
        return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return first_violation(schema["items"], depth + 1) if "items" in schema else None
