"""Reads a command of a deployment file or a guide as voxmill would, up to looking at the files that it names."""

import shlex
from pathlib import Path

from pipelines.config import AnnotateConfig, EncodeConfig
from training.curriculum.recipe import load_recipe
from training.launch.launch_config import read_launch
from voxmill.cli.settings import split_settings
from voxmill.core.config import load_config

ROOT = Path(__file__).resolve().parents[3]
HOME = "/opt/voxmill/"


def check_command(command: str) -> None:
    """`python SCRIPT ...` or `voxmill NAME ...`.

    Raises:
        AssertionError: no such script or command.
        UserError: a setting that it does not take.
    """
    first, second, *words = shlex.split(command)
    if first == "python":
        assert (ROOT / second.removeprefix(HOME)).is_file(), command
        name = Path(second).stem
    else:
        assert first == "voxmill", command
        name = second
    if name in ("annotate", "finish"):
        recipe_file, overrides = split_settings(words[2:])
        load_config(AnnotateConfig, recipe_file, overrides)
    elif name == "encode":
        assert words[1] == "--vae"
        recipe_file, overrides = split_settings(words[3:])
        load_config(EncodeConfig, recipe_file, overrides)
    else:
        assert name == "train", command
        _, overrides = split_settings(words[1:], recipe="")
        launch, rest = read_launch(overrides)
        recipe = load_recipe(words[0], rest)
        assert launch is None or recipe.rows % launch.num_workers == 0
        assert recipe.run.out.is_absolute()
