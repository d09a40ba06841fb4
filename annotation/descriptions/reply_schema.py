"""What a language model must answer, checked; any other answer is refused with a reason that can be counted."""

import json
import re
from typing import Annotated, Literal, TypeVar

from pydantic import Field, JsonValue, ValidationError

from voxmill.core.config import Config

Defect = Literal["empty", "html", "not_json", "wrong_schema", "truncated"]


class BadReplyError(Exception):
    """A reply that cannot be used. `defect` is its kind; the message quotes its start, in one line."""

    def __init__(self, defect: Defect, detail: str):
        super().__init__(f"{defect}: {detail}")
        self.defect: Defect = defect


class AxisTexts(Config):
    """Descriptions of one axis by granularity; empty where there is no fact."""

    tags: str = Field(max_length=2000)
    phrase: str = Field(max_length=2000)
    sentence: str = Field(max_length=2000)
    paragraph: str = Field(max_length=4000)


class DescriptionReply(Config):
    """The answer to `describe_facts`, also of its first version, which did not ask for `both`."""

    design: AxisTexts
    style: AxisTexts
    both: AxisTexts | None = None


class RepairReply(Config):
    """The answer to `repair_facts`."""

    text: str = Field(max_length=4000)


class ReadBackReply(Config):
    """The answer to `read_back`."""

    texts: list[Annotated[str, Field(max_length=4000)]] = Field(max_length=16)


R = TypeVar("R", DescriptionReply, RepairReply, ReadBackReply)


def parse_reply(text: str, kind: type[R]) -> R:
    """Checks a reply against its schema; one code fence around the object is tolerated, text around it is not.

    Raises:
        BadReplyError: it is empty, HTML, not JSON, cut off, or has missing, further or wrongly typed fields.
    """
    body = answered(text)
    fenced = re.fullmatch(r"(?s)```(?:json)?\s*(.*?)\s*```", body)
    body = fenced.group(1) if fenced else body
    try:
        # Duplicate keys could smuggle a second text past the check that read the first.
        value = json.loads(body, object_pairs_hook=_unique)
    except RecursionError:
        raise BadReplyError("not_json", "nested too deeply") from None
    except ValueError as error:
        opened = body.startswith("{") and not body.rstrip().endswith("}")
        raise BadReplyError("truncated" if opened else "not_json", f"{error}; starts {_start(body)}") from None
    try:
        return kind.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadReplyError("wrong_schema", f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}") from None


def answered(text: str) -> str:
    """An answer without the space around it.

    Raises:
        BadReplyError: it is empty or HTML.
    """
    body = text.strip()
    if not body:
        raise BadReplyError("empty", "nothing was answered")
    if re.match(r"(?is)<(!doctype|html|head|body|\?xml)", body):
        raise BadReplyError("html", _start(body))
    return body


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key is there twice")
    return unique


def _start(text: str) -> str:
    return repr(" ".join(text.split())[:60])
