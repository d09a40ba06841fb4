"""Configuration: YAML checked by pydantic, `key=value` overrides, and errors that name the nearest key.

Every part declares its own model beside its code, derived from `Config`; there is no global one.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from voxmill.core.errors import UserError
from voxmill.core.storage import to_path


class Config(BaseModel):
    """Base of every configuration: an unknown key is an error, values never change after checking.

    The string below a field documents its key (`describe_keys`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    renamed: ClassVar[dict[str, str]] = {}
    """Old keys of this section, dotted below it, with their new names: what the error about an old key offers."""


C = TypeVar("C", bound=Config)


def _stored(value: object) -> Path:
    if not isinstance(value, str):
        if not hasattr(value, "open"):
            raise ValueError("must be a path or URI")
        return cast(Path, value)
    try:
        return to_path(value)
    except UserError as error:
        raise ValueError(str(error)) from None


StoredPath = Annotated[Path, PlainValidator(_stored), PlainSerializer(str, return_type=str)]
"""A path on this machine, or a URI of object storage."""


def load_config(kind: type[C], path: str | Path | None = None, overrides: list[str] | None = None) -> C:
    """Reads `path` (YAML, may be None), applies `a.b=value` overrides, checks the result.

    Raises:
        UserError: unreadable file, not a mapping, an override without `=`, an unknown key or a wrong value; the
            message names the file, the key and the nearest known key.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); name an existing YAML file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise UserError(f"{path}: must hold `key: value` lines, found a {type(loaded).__name__}")
        values = loaded or {}
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r} is not an override; write key=value, such as select.min_dnsmos_ovr=3.0")
        if not text.strip():
            raise UserError(f"{override!r} has no value; write {key}=null for none")
        scalar = _scalar_above(kind, key)
        if scalar:
            raise UserError(f"{override!r}: {scalar} holds a value, not a section; write {scalar}=value")
        place = values
        *parents, last = key.split(".")
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                raise UserError(f"{override!r}: {parent} is not a section")
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"{override!r}: the value is not valid YAML") from None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{_source(path, overrides or [], error)}: {_explain(kind, error)}") from None


def _source(path: str | Path | None, overrides: list[str], error: ValidationError) -> str:
    """Where the wrong value stands: the last override of its key or of a section around it, or else the file."""
    dotted = ".".join(str(part) for part in error.errors()[0]["loc"])
    for override in reversed(overrides):
        key = override.partition("=")[0]
        if not dotted or f"{dotted}.".startswith(f"{key}.") or key.startswith(f"{dotted}."):
            return override
    return "the defaults" if path is None else str(path)


def _scalar_above(kind: type[Config], key: str) -> str:
    """The first part of a dotted key that names a value and has further parts after it; "" where there is none."""
    parts = key.split(".")
    for index, name in enumerate(parts[:-1]):
        field = kind.model_fields.get(name)
        if field is None:
            return ""
        section, chosen = _section(field.annotation)
        if section is None:
            holds_keys = any(get_origin(one) is dict for one in (field.annotation, *get_args(field.annotation)))
            return "" if holds_keys else ".".join(parts[: index + 1])
        if chosen:
            return ""
        kind = section
    return ""


def _explain(kind: type[Config], error: ValidationError) -> str:
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{dotted} is missing; write it into the recipe, or {dotted}=value on the command line"
    if first["type"] in ("model_type", "model_attributes_type"):
        return f"{dotted} is a section, found {first.get('input')!r}; write {dotted}.KEY=value"
    if first["type"] != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        if isinstance(first.get("input"), dict) and first["type"] == "value_error":
            # Of a whole section: the message names the keys.
            return f"{dotted}: {message}" if dotted else message
        return f"{dotted} = {first.get('input')!r}: {message}"
    new = _new_name(kind, dotted)
    if new is not None:
        return f"unknown key {dotted!r}; it is now {new!r}"
    known = known_keys(kind)
    last = dotted.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(dotted, known, n=1, cutoff=0.5) or [k for k in known if k.endswith("." + last)][:1]
    hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known)[:12])} ..."
    return f"unknown key {dotted!r}{hint}"


def _new_name(kind: type[Config], dotted: str) -> str | None:
    """The new name of a renamed key, declared by `kind` or by the section that the key is in."""
    if dotted in kind.renamed:
        return kind.renamed[dotted]
    first, dot, rest = dotted.partition(".")
    section, part = _section(kind.model_fields[first].annotation) if dot and first in kind.model_fields else (None, "")
    if section is None:
        return None
    if part:  # below a name that the user chose
        chosen, _, rest = rest.partition(".")
        first = f"{first}.{chosen}"
    new = _new_name(section, rest)
    return None if new is None else f"{first}.{new}"


def known_keys(kind: type[Config]) -> list[str]:
    """Every dotted key that `kind` accepts."""
    keys = []
    for name, field in kind.model_fields.items():
        keys.append(name)
        optional = isinstance(field.annotation, UnionType)
        for inner in get_args(field.annotation) if optional else (field.annotation,):
            if isinstance(inner, type) and issubclass(inner, Config):
                keys += [f"{name}.{key}" for key in known_keys(inner)]
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDescription:
    """One key of a configuration as `--keys` and docs/configuration.md show it.

    `key` is dotted; a part in capitals (NAME) is a name that the user chooses. `values`: what may be written.
    `default`: one line of YAML, or "" where the key must be given. `text`: one line, from the field's docstring.
    """

    key: str
    values: str
    default: str
    text: str


def describe_keys(kind: type[Config], default: Config | None = None, prefix: str = "") -> Iterator[KeyDescription]:
    """Every key of `kind` that holds a value, in the order of the model, sections unfolded.

    Args:
        default: an instance of `kind` whose values are the defaults; None: those of the fields.
        prefix: stands before every key, such as "label.".
    """
    for name, field in kind.model_fields.items():
        known = field.get_default(call_default_factory=True) if default is None else getattr(default, name)
        section, part = _section(field.annotation)
        if section is None:
            yield KeyDescription(
                key=prefix + name,
                values=_values(field),
                default="" if default is None and field.is_required() else _yaml(field, known),
                text=field.description or "",
            )
            continue
        inner = known if isinstance(known, section) else None
        yield from describe_keys(section, inner, f"{prefix}{name}.{part}")


def _section(annotation: Any) -> tuple[type[Config] | None, str]:
    """(model of a section, what stands between its name and its keys); (None, "") of a field that holds a value."""
    if get_origin(annotation) is dict:
        keys, values = get_args(annotation)
        if isinstance(values, type) and issubclass(values, Config):
            return values, "NAME." if keys is str else "KEY."
    for inner in get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,):
        if isinstance(inner, type) and issubclass(inner, Config):
            return inner, ""
    return None, ""


_NAMES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    NoneType: "null",
    Any: "any value",
}


def _values(field: FieldInfo) -> str:
    bounds = []
    for limit in field.metadata:
        for kind, word, edge in ((Ge, ">=", "ge"), (Gt, ">", "gt"), (Le, "<=", "le"), (Lt, "<", "lt")):
            if isinstance(limit, kind):
                bounds.append(f"{word} {getattr(limit, edge)}")
    return " ".join([_words(field.annotation), *bounds])


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in (UnionType, Union):
        return " or ".join(_words(one) for one in inner)
    if origin is list or (origin is tuple and inner[-1] is ...):
        one = _words(inner[0])
        return f"list of ({one})" if "|" in one else f"list of {one}"
    if origin is tuple:
        return f"list of {len(inner)}: {', '.join(_words(one) for one in inner)}"
    if origin is dict:
        return f"mapping of {_words(inner[0])} to {_words(inner[1])}"
    return _NAMES.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _yaml(field: FieldInfo, value: Any) -> str:
    annotation: Any = field.annotation
    plain = TypeAdapter(annotation).dump_python(value, mode="json")
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return text.removesuffix("...").strip()


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines `key: old -> new` for every leaf in which two nested dicts differ."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a!r} -> {b!r}")
    return lines
