"""Many requests from a JSONL file: one object a line, checked as a whole before anything is generated.

{"text": "Hello.", "description": "a warm voice", "reference": "anna.wav", "seed": 7, "id": "greeting"}
"""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.generation.request import Settings
from voxmill.core.errors import UserError

WORDS = ("id", "text", "description", "reference", "prompt", "prompt_text")
FIELDS = (*WORDS, "seed", *Settings.model_fields)


@dataclass(frozen=True)
class Order:
    """One request as the user wrote it. Paths are resolved; `name` is the stem of its output file."""

    name: str
    text: str
    description: str | None = None
    reference: Path | None = None
    prompt: Path | None = None
    prompt_text: str | None = None
    seed: int | None = None
    settings: Settings = Settings()
    place: str = ""
    """"requests.jsonl, line 3", put before an error; empty on the command line."""


def read_orders(path: Path, *, settings: dict[str, Any], seed: int | None) -> list[Order]:
    """The file's requests. Relative paths start at the file's folder; empty lines are skipped.

    Args:
        settings: what the command line says; a line's own values win.
        seed: of lines without one; None draws.

    Raises:
        UserError: unreadable, empty, or a line that is malformed, has an unknown field, a wrong value or a used id;
            names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a JSONL file of requests") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    orders: list[Order] = []
    lines: dict[str, int] = {}
    # Only line feeds end a line: JSON may hold U+2028 and its like, which `splitlines` would break at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        order = _order(line, place, number, path.parent, settings, seed)
        if order.name.lower() in lines:
            raise UserError(f"{place}: id {order.name!r} is line {lines[order.name.lower()]}'s; give each its own")
        lines[order.name.lower()] = number
        orders.append(order)
    if not orders:
        raise UserError(f'{path}: no requests; write one JSON object a line, such as {{"text": "Hello."}}')
    return orders


def _order(line: str, place: str, number: int, folder: Path, settings: dict[str, Any], seed: int | None) -> Order:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f'{place}: must be an object such as {{"text": "Hello."}}, found a {type(values).__name__}')
    for key in values:
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(FIELDS)}"
            raise UserError(f"{place}: unknown field {key!r}; {hint}")
    values = {key: value for key, value in values.items() if value is not None}
    if "text" not in values:
        raise UserError(f'{place}: no text; add "text": "what to say"')
    for key in WORDS:
        if not isinstance(values.get(key, ""), str):
            raise UserError(f"{place}: {key} = {values[key]!r} must be a string")
    name = values.get("id", f"{number:06d}")
    if not name.strip() or name in (".", "..") or set(name) & set('/\\:*?"<>|\0\n\r\t'):
        raise UserError(f"{place}: id {name!r} cannot name a file; use letters, digits, '-', '_' and '.'")
    own = {key: values[key] for key in Settings.model_fields if key in values}
    files = {key: folder / values[key] if key in values else None for key in ("reference", "prompt")}
    return Order(
        name,
        values["text"],
        values.get("description"),
        files["reference"],
        files["prompt"],
        values.get("prompt_text"),
        check_seed(values.get("seed", seed), place),
        check_settings(settings | own, place),
        place,
    )


def check_settings(values: dict[str, Any], place: str = "") -> Settings:
    """`Settings` of these values.

    Raises:
        UserError: a value out of its range, named.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{place}{': ' if place else ''}{field} = {first.get('input')!r}: {first['msg']}") from None


def check_seed(seed: Any, place: str = "") -> int | None:
    """The seed, if it is one.

    Raises:
        UserError: not an integer from 0 to 2**63 - 1.
    """
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63):
        return seed
    raise UserError(f"{place}{': ' if place else ''}seed = {seed!r} must be an integer from 0 to 2**63 - 1")
