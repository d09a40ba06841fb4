"""A diarization pipeline in the layout of pyannote/speaker-diarization-community-1: its segmentation network is real,
what compares voices is drawn at random."""

import shutil
from pathlib import Path

import numpy as np
import yaml

from voxmill.core.assets import asset_path

DIMENSION, REDUCED = 256, 128


def save_pipeline(folder: Path) -> str:
    """Writes the folder and returns the path as a configuration names it."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    for name in ("segmentation", "embedding", "plda"):
        (folder / name).mkdir(parents=True)
    shutil.copy(asset_path("pyannote-segmentation") / "pytorch_model.bin", folder / "segmentation")
    torch.manual_seed(2)
    network = WeSpeakerResNet34().eval()
    checkpoint: dict[str, object] = {
        "state_dict": network.state_dict(),
        "hyper_parameters": dict(network.hparams),
        "pytorch-lightning_version": "2.6.0",
        "pyannote.audio": {
            "versions": {"torch": "2.13.0", "pyannote.audio": "4.0.7"},
            "architecture": {"module": "pyannote.audio.models.embedding", "class": "WeSpeakerResNet34"},
            "specifications": Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0),
        },
    }
    torch.save(checkpoint, folder / "embedding" / "pytorch_model.bin")
    random = np.random.default_rng(4)
    np.savez(
        folder / "plda" / "xvec_transform.npz",
        mean1=np.zeros(DIMENSION),
        mean2=np.zeros(REDUCED),
        lda=random.standard_normal((DIMENSION, REDUCED)) / np.sqrt(DIMENSION),
    )
    np.savez(folder / "plda" / "plda.npz", mu=np.zeros(REDUCED), tr=np.eye(REDUCED), psi=np.linspace(4.0, 0.1, REDUCED))
    config = {
        "dependencies": {"pyannote.audio": "4.0.0"},
        "pipeline": {
            "name": "pyannote.audio.pipelines.SpeakerDiarization",
            "params": {
                "clustering": "VBxClustering",
                "segmentation": "$model/segmentation",
                "segmentation_batch_size": 32,
                "embedding": "$model/embedding",
                "embedding_batch_size": 32,
                "embedding_exclude_overlap": True,
                "plda": "$model/plda",
            },
        },
        "params": {"clustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8}, "segmentation": {"min_duration_off": 0.0}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return str(folder)
