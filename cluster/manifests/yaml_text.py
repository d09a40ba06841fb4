"""YAML that people read: comments above keys, short collections on one line, long strings folded."""

import textwrap
from collections.abc import Iterator, Mapping

import yaml

Tree = str | int | float | bool | None | list["Tree"] | dict[str, "Tree"]
"""What a file holds; a key may be a `Commented` one."""

WIDTH = 100
"""Longest line that is made by folding or by joining a collection, in characters; comments too."""


class Commented(str):
    """A key with a comment above it."""

    comment: str

    def __new__(cls, key: str, comment: str) -> "Commented":
        made = super().__new__(cls, key)
        made.comment = comment
        return made


def yaml_text(tree: Mapping[str, Tree], header: str = "") -> str:
    """The text of a YAML document.

    Args:
        header: comment at its top, line by line.
    """
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    return "\n".join([*lines, *_mapping(tree, 0)]) + "\n"


def _mapping(tree: Mapping[str, Tree], indent: int) -> Iterator[str]:
    margin = " " * indent
    for key, value in tree.items():
        if isinstance(key, Commented):
            yield from (f"{margin}# {line}" for line in textwrap.wrap(key.comment, WIDTH - indent - 2))
        yield from _entry(f"{margin}{_flow(str(key))}:", value, indent)


def _entry(start: str, value: Tree, indent: int) -> Iterator[str]:
    """`start` and the value that belongs to it, on its line where it fits."""
    if isinstance(value, str) and (len(start) + len(value) > WIDTH and " " in value or "\n" in value):
        yield from _long_string(start, value, indent + 2)
        return
    if not isinstance(value, list | dict) or _is_short(value, len(start)):
        yield f"{start} {_flow(value)}"
        return
    yield start
    if isinstance(value, dict):
        yield from _mapping(value, indent + 2)
    else:
        for item in value:
            yield from _item(item, indent + 2)


def _item(item: Tree, indent: int) -> Iterator[str]:
    margin = " " * indent
    if not isinstance(item, dict) or _is_short(item, indent + 2):
        yield from _entry(f"{margin}-", item, indent)
        return
    lines = list(_mapping(item, indent + 2))
    yield f"{margin}- {lines[0].lstrip()}"
    yield from lines[1:]


def _is_short(value: Tree, start: int) -> bool:
    return not _has_comments(value) and _depth(value) <= 2 and start + 1 + len(_flow(value)) <= WIDTH


def _has_comments(value: Tree) -> bool:
    if isinstance(value, dict):
        return any(isinstance(key, Commented) or _has_comments(inner) for key, inner in value.items())
    return isinstance(value, list) and any(_has_comments(inner) for inner in value)


def _depth(value: Tree) -> int:
    if isinstance(value, list | dict) and value:
        return 1 + max(_depth(inner) for inner in (value.values() if isinstance(value, dict) else value))
    return 0


def _long_string(start: str, text: str, indent: int) -> Iterator[str]:
    """Folded, or as it is where it has lines of its own."""
    margin = " " * indent
    if "\n" in text:
        yield f"{start} |{'' if text.endswith(chr(10)) else '-'}"
        yield from (f"{margin}{line}".rstrip() for line in text.rstrip("\n").split("\n"))
        return
    yield f"{start} >-"
    folded = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    yield from (f"{margin}{line}" for line in folded)


def _flow(value: Tree) -> str:
    return (
        yaml.safe_dump(_plain(value), default_flow_style=True, sort_keys=False, width=10_000)
        .removesuffix("...\n")
        .strip()
    )


def _plain(value: Tree) -> Tree:
    """Without `Commented` keys, which PyYAML cannot represent."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
