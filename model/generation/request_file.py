"""Many requests from a JSONL file: one object a line, checked as a whole before anything is generated.

{"text": "Hello.", "description": "a warm voice", "reference": "anna.wav", "seed": 7, "id": "greeting"}
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from model.generation.request import Settings
from voxmill.core.errors import UserError

TEXT_FIELDS = ("id", "text", "description", "reference", "prompt", "prompt_text")
FIELDS = (*TEXT_FIELDS, "seed", *Settings.model_fields)


@dataclass(frozen=True)
class RequestLine:
    """One request as the user wrote it, in a file or on the command line."""

    name: str
    """Stem of the output file."""
    text: str
    description: str | None = None
    reference: Path | None = None
    """Recording of the speaker; relative paths are resolved."""
    prompt: Path | None = None
    prompt_text: str | None = None
    seed: int | None = None
    settings: Settings = Settings()
    location: str = ""
    """Such as "requests.jsonl, line 3": what an error message begins with; empty on the command line."""


def read_request_lines(path: Path, *, settings: Mapping[str, object], seed: int | None) -> list[RequestLine]:
    """The file's requests. Relative paths start at the file's folder; empty lines are skipped.

    Args:
        settings: `Settings` by name from the command line; a line's own values win.
        seed: of lines without one; None: drawn when the request starts.

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
    requests: list[RequestLine] = []
    lines: dict[str, int] = {}
    # Only line feeds end a line: JSON may hold U+2028 and its like, which `splitlines` would break at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number}"
        request = _request(line, location, number, path.parent, settings, seed)
        name = request.name.lower()  # some file systems do not tell capital letters from small ones
        if name in lines:
            raise UserError(
                f"{location}: id {request.name!r} is taken by line {lines[name]}; give each line its own id"
            )
        lines[name] = number
        requests.append(request)
    if not requests:
        raise UserError(f'{path}: no requests; write one JSON object a line, such as {{"text": "Hello."}}')
    return requests


def _request(
    line: str, location: str, number: int, folder: Path, settings: Mapping[str, object], seed: int | None
) -> RequestLine:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise UserError(f"{location}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f'{location}: must be an object such as {{"text": "Hello."}}, not a {type(values).__name__}')
    for key in values:
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(FIELDS)}"
            raise UserError(f"{location}: unknown field {key!r}; {hint}")
    values = {key: value for key, value in values.items() if value is not None}
    if "text" not in values:
        raise UserError(f'{location}: no text; add "text": "the words to speak"')
    for key in TEXT_FIELDS:
        if not isinstance(values.get(key, ""), str):
            raise UserError(f"{location}: {key} = {values[key]!r} must be a string")
    name = values.get("id", f"{number:06d}")
    if not name.strip() or name in (".", "..") or set(name) & set('/\\:*?"<>|\0\n\r\t'):
        raise UserError(f"{location}: id {name!r} cannot name a file; use letters, digits, '-', '_' and '.'")
    own = {key: values[key] for key in Settings.model_fields if key in values}
    files = {key: folder / values[key] if key in values else None for key in ("reference", "prompt")}
    return RequestLine(
        name=name,
        text=values["text"],
        description=values.get("description"),
        reference=files["reference"],
        prompt=files["prompt"],
        prompt_text=values.get("prompt_text"),
        seed=check_seed(values.get("seed", seed), location),
        settings=check_settings({**settings, **own}, location),
        location=location,
    )


def check_settings(values: Mapping[str, object], location: str = "") -> Settings:
    """`Settings` of these values; others keep their defaults.

    Args:
        location: what an error message begins with.

    Raises:
        UserError: a value of the wrong type or out of its range; names it.
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{location}{': ' if location else ''}{field} = {first.get('input')!r}: {first['msg']}"
        ) from None


def check_seed(seed: object, location: str = "") -> int | None:
    """The seed, checked: None or an integer from 0 to 2**63 - 1.

    Raises:
        UserError: not an integer from 0 to 2**63 - 1.
    """
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63):
        return seed
    raise UserError(f"{location}{': ' if location else ''}seed = {seed!r} must be an integer from 0 to 2**63 - 1")
