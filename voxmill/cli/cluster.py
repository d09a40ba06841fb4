"""`voxmill cluster`: the files that start voxmill on Kubernetes, SLURM and `ray up`, from one file of values."""

from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.keys import show_keys
from voxmill.cli.settings import check_folder, local_path, split_settings
from voxmill.core.errors import command

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[values.yaml] [key=value ...]", show_default=False, help="a values file, and values that override it"
    ),
]


@command("voxmill cluster render")
def render(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", parser=local_path, help="where they go")],
    settings: Settings = None,
    keys: Annotated[bool, show_keys("cluster render")] = False,
) -> None:
    """Writes the files that start annotate, encode and train on a cluster, and the values.yaml that they come from.

    FOLDER gets kuberay_*.yaml (Kubernetes), slurm_* (SLURM), ray_*.yaml (`ray up`, on AWS and on your own machines),
    over older ones. A values.yaml that is there stays. Its values are the image, the paths, which may be URIs, and the
    sizes of the machines; every file says in its head how to start it.

    \b
    Examples:
      voxmill cluster render -o my-cluster/
      voxmill cluster render my-cluster/values.yaml -o my-cluster/
      voxmill cluster render -o my-cluster/ image=registry.example.com/voxmill:1 storage.service_account=voxmill
    """
    from cluster.manifests.render import DEFAULT_VALUES, write_files
    from cluster.manifests.values import Values
    from voxmill.core.config import load_config

    values, overrides = split_settings(settings, recipe="values.yaml")
    check_folder(out, "FOLDER")
    names = write_files(load_config(Values, values or DEFAULT_VALUES, overrides), out)
    print(f"{out}: {', '.join(names)}")
