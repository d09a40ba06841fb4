"""KubeRay's own schemas as JSON Schema validators that refuse unknown fields, as `kubectl` does."""

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).resolve().parents[2] / "data" / "kuberay"


def schema_errors(document: dict[str, Any]) -> list[str]:
    """A line for each field of a RayCluster or RayJob that the API server would refuse or drop."""
    schema = json.loads(gzip.decompress((FOLDER / f"{document['kind']}.json.gz").read_bytes()))
    # Of every Kubernetes object; the API server knows its fields without the schema.
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(_closed(schema))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def _closed(schema: Any) -> Any:
    """The schema with Kubernetes' own rules in JSON Schema's words."""
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(inner) for key, inner in schema.items()}
    known = isinstance(closed.get("properties"), dict) and closed.get("type") == "object"
    if known and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
