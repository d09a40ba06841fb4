"""Systems under evaluation, by `NAME=KIND:REST` as the command line names them.

voxcpm2=checkpoint:VoxCPM2/            recipe reference+continuation where there is a reference (report Table 4)
cont=checkpoint:VoxCPM2/#continuation  or #reference; #description speaks without the reference
peer=wavs:outputs/                     outputs/ID.wav (flac, mp3, ogg)
espeak=command:espeak-ng -v {language} -w {output} -- {text}
api=speech:http://127.0.0.1:8000/v1#MODEL/VOICE
espeak=command,version=2:...           another version, for what changed without this name changing
"""

from evaluation.systems.base import System
from evaluation.systems.checkpoint import Checkpoint
from evaluation.systems.command import Command
from evaluation.systems.speech_endpoint import SpeechEndpoint
from evaluation.systems.wav_folder import WavFolder
from voxmill.core.errors import UserError


def read_system(named: str, *, device: str = "auto", workers: int = 1) -> System:
    """The system that `NAME=KIND:REST` names.

    Args:
        device: where a checkpoint runs. workers: utterances that a command or an endpoint speaks at once.

    Raises:
        UserError: not of this form, an unknown kind, or something in it that is not there.
    """
    name, equals, spec = named.partition("=")
    kind, colon, rest = spec.partition(":")
    if not equals or not colon or not name or set(name) & set('/\\:*?"<>| \0') or name.startswith("."):
        raise UserError(f"--system {named!r}: write NAME=KIND:REST, such as espeak=command:... or peer=wavs:FOLDER")
    kind, comma, option = kind.partition(",")
    key, _, version = option.partition("=")
    if comma and (key != "version" or not version):
        raise UserError(f"--system {named!r}: {option!r} is unknown; write NAME={kind},version=2:REST")
    system = _read(name, kind, rest, named, device, workers)
    system.version = version
    return system


def _read(name: str, kind: str, rest: str, named: str, device: str, workers: int) -> System:
    if kind == "wavs":
        return WavFolder(name, rest)
    if kind == "command":
        return Command(name, rest, workers=workers)
    if kind == "checkpoint":
        place, _, recipe = rest.partition("#")
        return Checkpoint(name, place, recipe, device)
    if kind == "speech":
        return SpeechEndpoint(name, rest, workers=workers)
    raise UserError(f"--system {named!r}: kind {kind!r} is unknown; use checkpoint, wavs, command or speech")
