"""Names and texts of a dataset as other formats can hold them: nothing in them leaves a folder or ends a field."""

import re
import unicodedata

from voxmill.core.errors import UserError

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORBIDDEN = re.compile(r'[<>:"|?*\\]')
_SUFFIX = re.compile(r"\.(?=\w*[A-Za-z])\w{1,5}$")
_CLIP_ID = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z_.-]{0,127}")
_LONGEST = 160
"""Bytes of a folder's or file's name; file systems take 255, with suffix, channel and a temporary name's ending."""
# Words and marks that pandas, and so pyannote.database, reads as missing values.
_MISSING = frozenset({"-NaN", "-nan", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"})


def one_line(text: str) -> str:
    """A text without line breaks of any kind, control characters and space at its ends."""
    return " ".join(_CONTROLS.sub(" ", text).split())


def one_field(text: str) -> str:
    """A text without white space and quotes, for formats whose fields are separated by spaces.

    Letters and digits of all scripts stay; other characters become %XX, as in a URI, so that different texts differ.
    """
    made = "".join(one if one.isalnum() or one in "-._/@+" else _percent(one) for one in text)
    return _percent(made[0]) + made[1:] if made in _MISSING else made


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def relative_name(path: str, suffix: str) -> str:
    """A name below a folder, with slashes, that is like a recording's path and ends in `suffix`.

    The recording's own suffix is left out, `..`, drive letters and schemes lead nowhere. Different paths may give the
    same name.
    """
    folders, name = path.replace("\\", "/").split("/")[:-1], path.replace("\\", "/").rsplit("/", 1)[-1]
    parts = [_component(folder) for folder in folders if folder not in ("", ".")]
    # A folder is not to be called like a file that may lie beside it.
    parts = [f"{part}_" if part.casefold().endswith(suffix.casefold()) else part for part in parts]
    return "/".join([*parts, f"{_component(_SUFFIX.sub('', name))}{suffix}"])


def _component(name: str) -> str:
    name = _FORBIDDEN.sub("_", _CONTROLS.sub("_", name)).strip(" ")
    name = re.sub(r"^\.+|\.+$", lambda dots: "_" * len(dots[0]), name)
    return name.encode()[:_LONGEST].decode("utf-8", "ignore") or "_"


def same_file(name: str) -> str:
    """Equal for names that a file system may take for one: of another case, or composed in another way."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def clip_file(clip_id: str) -> str:
    """Where a clip's audio lies below the folder of an export: a folder for each two first characters.

    Raises:
        UserError: the name is none that `voxmill annotate` gives.
    """
    if not _CLIP_ID.fullmatch(clip_id):
        raise UserError(f"clip_id {clip_id!r} is no name of a file; make the dataset with `voxmill annotate`")
    return f"audio/{clip_id[:2]}/{clip_id}.flac"
