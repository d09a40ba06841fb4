"""Trains AudioVAE V2 from new weights (report 3.2 and 4.5), or from a checkpoint's.

    voxmill train-vae DATA OUT [recipe.yaml] [key=value ...]
    torchrun --nproc-per-node 8 training/train_vae.py DATA OUT [recipe.yaml] [key=value ...]

`voxmill train-vae --help` describes the command, which is the same for both.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from voxmill.cli.app import script

    script("train-vae")

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from voxmill.core.errors import ExitStatus

if TYPE_CHECKING:
    from training.codec.config import VAETrainConfig


def train(data: str, out: Path, config: "VAETrainConfig") -> ExitStatus:
    """Trains until `run.steps` or `run.max_minutes` (DONE), or until SIGTERM or SIGINT (STOPPED); saves in all cases.

    Args:
        data: OUT of a finished `voxmill annotate`, or a folder of audio. out: folder of the run.

    Raises:
        UserError: no usable audio, settings that do not fit together, or an `out` of another run.
        JobError: the loss is not finite any more, or the other ranks cannot be reached.
    """
    from training.codec.loop import Run
    from training.run.run_folder import held_by_first
    from training.run.stop_signal import StopSignal
    from training.run.world import join_world

    # A signal while the ranks still wait for each other ends the process: nothing is lost.
    with (
        join_world(config.run.device) as world,
        held_by_first(world, out),
        StopSignal(signal.SIGTERM, signal.SIGINT) as stop,
    ):
        return Run(data, out, config, world, stop)()
