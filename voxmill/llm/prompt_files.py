"""Prompts by name and version: text files in the package of whoever asks with them."""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A template for `str.format`. `sha256` is of the file, so that an edited prompt never gets old replies."""

    name: str
    template: str
    sha256: str

    def fill(self, **values: str) -> str:
        """The prompt with its values; braces in values stay as they are.

        Raises:
            KeyError: a value is missing.
        """
        return self.template.format_map(values)


def quoted(text: str) -> str:
    """A text of data on one line in quotation marks, as JSON has it, for a prompt.

    Marks of chat templates such as `<|im_end|>` are broken up: a server would read them as its own.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    broken = re.sub(r"(<|\[|\{)(?=[|/]?[|A-Za-z_/])", r"\1 ", line)
    return json.dumps(broken, ensure_ascii=False)


@cache
def read_prompt(package: str, name: str) -> Prompt:
    """A prompt by its package and its file's name without ending, such as `describe_facts.v1`.

    Raises:
        UserError: there is none of that name.
    """
    folder = resources.files(package)
    names = sorted(p.name.removesuffix(".txt") for p in folder.iterdir() if p.name.endswith(".txt"))
    if name not in names:
        raise UserError(f"no prompt {name!r} in {package.replace('.', '/')}/; there are {', '.join(names)}")
    content = folder.joinpath(f"{name}.txt").read_bytes()
    return Prompt(name=name, template=content.decode("utf-8"), sha256=sha256_bytes(content))
