"""Every file of a cluster from one values file, and the values file itself with what each key means."""

from pathlib import Path

from pydantic import BaseModel

from cluster.manifests.kuberay import kuberay_files
from cluster.manifests.ray_up import ray_up_files
from cluster.manifests.slurm import slurm_files
from cluster.manifests.values import Values
from cluster.manifests.yaml_text import Commented, Tree, yaml_text
from voxmill.core.config import Config
from voxmill.core.files import write_atomically

VALUES_FILE = "values.yaml"
DEFAULT_VALUES = Path(__file__).parents[1] / VALUES_FILE
"""The defaults as a file, so that single values of a worker group can be overridden."""
_MADE = "# Made by `voxmill cluster render` from values.yaml: change that and render again.\n"
_HEADER = """\
What the files beside this one are rendered from: change it, then

  voxmill cluster render values.yaml -o .

A key that is left out has the default that stands in `voxmill cluster render --keys`. Memory is in GiB."""


def render(values: Values) -> dict[str, str]:
    """(name, text) of every file but values.yaml."""
    files = kuberay_files(values) | ray_up_files(values) | slurm_files(values)
    return {name: _marked(text) for name, text in files.items()}


def _marked(text: str) -> str:
    """With a line that says where it comes from, below the interpreter's."""
    if text.startswith("#!"):
        first, newline, rest = text.partition("\n")
        return first + newline + _MADE + rest
    return _MADE + text


def values_text(values: Values) -> str:
    """The values file, every key with its comment."""
    return yaml_text({}, _HEADER) + "\n" + yaml_text(_commented(values, set()))


def write_files(values: Values, folder: Path) -> list[str]:
    """Writes every file into `folder`, over older ones, but leaves a values.yaml that is there.

    Returns:
        their names, in order.
    """
    files = render(values)
    if not (folder / VALUES_FILE).exists():
        files[VALUES_FILE] = values_text(values)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(folder / name, text)
    return sorted(files)


def _commented(config: Config, explained: set[type[BaseModel]]) -> dict[str, Tree]:
    """The values by key, with a comment above each key of a model that is met for the first time."""
    kind = type(config)
    first = kind not in explained
    explained.add(kind)
    tree: dict[str, Tree] = {}
    for name, field in kind.model_fields.items():
        key = Commented(name, field.description) if first and field.description else name
        tree[key] = _tree(getattr(config, name), explained)
    return tree


def _tree(value: object, explained: set[type[BaseModel]]) -> Tree:
    if isinstance(value, Config):
        return _commented(value, explained)
    if isinstance(value, dict):
        return {str(key): _tree(inner, explained) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_tree(inner, explained) for inner in value]
    assert value is None or isinstance(value, str | int | float | bool)
    return value
