"""Prompts by name and version; each is a text file beside this one in `prompts/`."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from voxmill.core.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """A template for `str.format`. `sha256` is of the file, so that an edited prompt never meets old replies."""

    name: str
    template: str
    sha256: str

    def fill(self, **values: str) -> str:
        """The prompt with its values; braces in values stay as they are.

        Raises:
            KeyError: a value is missing.
        """
        return self.template.format_map(values)


@cache
def prompt(name: str) -> Prompt:
    """A prompt by its file's name without ending, such as `describe_facts.v1`.

    Raises:
        UserError: there is none of that name.
    """
    folder = resources.files("annotation.descriptions.prompts")
    names = sorted(p.name.removesuffix(".txt") for p in folder.iterdir() if p.name.endswith(".txt"))
    if name not in names:
        raise UserError(f"no prompt {name!r} in annotation/prompts/; there are {', '.join(names)}")
    data = folder.joinpath(f"{name}.txt").read_bytes()
    return Prompt(name, data.decode("utf-8"), hashlib.sha256(data).hexdigest())
