"""Every configuration key: `voxmill COMMAND --keys`, and docs/configuration.md.

python -m voxmill.cli.keys > docs/configuration.md
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from voxmill.core.config import Config, KeyDescription


def _annotate() -> "Sequence[type[Config]]":
    from pipelines.config import AnnotateConfig

    return (AnnotateConfig,)


def _encode() -> "Sequence[type[Config]]":
    from pipelines.config import EncodeConfig

    return (EncodeConfig,)


def _export() -> "Sequence[type[Config]]":
    from pipelines.exports.cues import SubtitleConfig
    from pipelines.exports.finetune_jsonl import FinetuneConfig

    return (FinetuneConfig, SubtitleConfig)


def _train() -> "Sequence[type[Config]]":
    from training.curriculum.recipe import Recipe
    from training.launch.launch_config import LaunchConfig

    return (Recipe, LaunchConfig)


def _train_vae() -> "Sequence[type[Config]]":
    from training.codec.config import VAETrainConfig

    return (VAETrainConfig,)


def _evaluate() -> "Sequence[type[Config]]":
    from evaluation.config import EvaluateConfig

    return (EvaluateConfig,)


def _cluster() -> "Sequence[type[Config]]":
    from cluster.manifests.values import Values

    return (Values,)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTable:
    """The keys of one command. `models` imports them, which takes a second or more, so only where they are shown."""

    example: str
    text: str
    models: "Callable[[], Sequence[type[Config]]]"

    def rows(self) -> "Iterator[KeyDescription]":
        """Every key, in the order of the models."""
        from voxmill.core.config import describe_keys

        for model in self.models():
            yield from describe_keys(model)


TABLES = {
    "annotate": KeyTable(
        example="voxmill annotate recordings/ dataset/ select.min_dnsmos_ovr=3.0",
        text="`corrections` and the keys under `select`, `texts`, `write` and `run` can be changed on a finished "
        "dataset; no model runs again.",
        models=_annotate,
    ),
    "encode": KeyTable(
        example="voxmill encode dataset/ --vae VoxCPM2/ batch_seconds=60", text="Latents of every clip.", models=_encode
    ),
    "train": KeyTable(
        example="voxmill train stage1 init=VoxCPM2/ datasets.main.path=dataset/ run.out=run/",
        text="Recipes that come with voxmill (stage1, finetune_lora ...) set other defaults; the keys from "
        "`num_workers` on stand on the command line only and launch the ranks with Ray Train.",
        models=_train,
    ),
    "train-vae": KeyTable(
        example="voxmill train-vae dataset/ vae/ small rows=64",
        text="Recipes that come with voxmill (tiny, small, voxcpm2) set other defaults.",
        models=_train_vae,
    ),
    "evaluate": KeyTable(
        example="voxmill evaluate texts:list.jsonl --system peer=wavs:outputs/ -o scores/ seeds=[0,1,2]",
        text="The same keys for every benchmark.",
        models=_evaluate,
    ),
    "export": KeyTable(
        example="voxmill export dataset/ finetune/ descriptions=2",
        text="The first keys are of `--as jsonl`, for the released fine-tuning script, the last one of subtitles.",
        models=_export,
    ),
    "cluster render": KeyTable(
        example="voxmill cluster render my-cluster/values.yaml -o my-cluster/",
        text="What the files for Kubernetes, SLURM and `ray up` are made from. Memory is in GiB.",
        models=_cluster,
    ),
}


def show_keys(name: str) -> Any:
    """The option `--keys` of a command, as a typer option that prints the keys and ends the command."""

    def show(value: bool) -> bool:
        if value:
            print("\n".join(key_lines(TABLES[name].rows())))
            raise typer.Exit
        return value

    return typer.Option(
        "--keys", is_eager=True, callback=show, help="print every key with its default and what it means, and exit"
    )


def key_lines(keys: "Iterator[KeyDescription]") -> list[str]:
    """A line a key, `key=default  meaning [values]`, in columns; a key without `=` must be given."""
    rows = [(f"{key.key}={key.default}" if key.default else key.key, key) for key in keys]
    width = min(max(len(left) for left, _ in rows), 60)
    return [f"{left:{width}}  {key.text} [{key.values}{'' if key.default else '; required'}]" for left, key in rows]


def page() -> str:
    """The text of docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "Every key of every command, with its default. A recipe is a YAML file of these keys; `key=value` after the",
        "positional arguments overrides it, with dots between a section and its key. `voxmill COMMAND --keys` prints",
        "the same list. This page is generated: `make docs-pages`.",
    ]
    for name, table in TABLES.items():
        lines += ["", f"## voxmill {name}", "", table.text, "", f"    {table.example}", ""]
        lines += ["| Key | Default | Values | Meaning |", "|---|---|---|---|"]
        for key in table.rows():
            default = f"`{key.default}`" if key.default else "required"
            cells = (f"`{key.key}`", default, key.values, key.text)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
