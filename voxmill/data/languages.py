"""The 30 languages and 9 Chinese dialects of VoxCPM2 by name (report Table 8 and the model's own list)."""

import re
from collections.abc import Collection

from voxmill.core.errors import UserError

LANGUAGES: dict[str, str] = {
    "ar": "Arabic",
    "my": "Burmese",
    "zh": "Chinese",
    "da": "Danish",
    "nl": "Dutch",
    "en": "English",
    "fi": "Finnish",
    "fr": "French",
    "de": "German",
    "el": "Greek",
    "he": "Hebrew",
    "hi": "Hindi",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "km": "Khmer",
    "ko": "Korean",
    "lo": "Lao",
    "ms": "Malay",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "es": "Spanish",
    "sw": "Swahili",
    "sv": "Swedish",
    "tl": "Tagalog",
    "th": "Thai",
    "tr": "Turkish",
    "vi": "Vietnamese",
}

# A dialect has the code of its language and a tag of its own; an ASR model that knows only `zh` reports `zh`.
DIALECTS: dict[str, str] = {
    "zh-sichuan": "Sichuanese",
    "zh-yue": "Cantonese",
    "zh-wu": "Wu",
    "zh-dongbei": "Northeastern Mandarin",
    "zh-henan": "Henan",
    "zh-shaanxi": "Shaanxi",
    "zh-shandong": "Shandong",
    "zh-tianjin": "Tianjin",
    "zh-minnan": "Southern Min",
}

# How else they are called: in BCP-47 and ISO 639, by Azure's and Dolphin's tags of regions (zh-CN-sichuan,
# zh-SICHUAN), in English and Chinese; `_dialect_key` leaves out what says no more than Chinese.
_DIALECT_NAMES: dict[str, tuple[str, ...]] = {
    "zh-sichuan": ("sichuan", "sichuanese", "szechuan", "szechuanese", "四川", "川"),
    "zh-yue": ("yue", "cantonese", "guangdong", "ct", "粤", "粵", "广东", "廣東"),
    "zh-wu": ("wu", "wuu", "shanghai", "shanghainese", "吴", "吳", "上海"),
    "zh-dongbei": ("dongbei", "liaoning", "东北", "東北"),
    "zh-henan": ("henan", "henanese", "河南"),
    "zh-shaanxi": ("shaanxi", "shaanxinese", "陕西", "陝西"),
    "zh-shandong": ("shandong", "shandongnese", "山东", "山東"),
    "zh-tianjin": ("tianjin", "tianjinese", "天津"),
    "zh-minnan": ("minnan", "nan", "min nan", "southern min", "hokkien", "taiwanese", "闽南", "閩南", "台语", "台語"),
}
_ONLY_CHINESE = frozenset(("zh", "zho", "cmn", "chinese", "mandarin", "dialect", "cn", "x", "hans", "hant", "null"))
_DIALECTS: dict[str, str] = {name: code for code, names in _DIALECT_NAMES.items() for name in names}

# Errors are counted in characters for these, in words for the others: report Table 8.
CHARACTER_BASED = frozenset({"ar", "he", "hi", "ja", "km", "ko", "lo", "my", "sw", "th", "zh"})

_WHISPER_TO_OURS = {"jw": "jv", "nn": "no", "yue": "zh-yue"}
_TAG_TO_OURS = {"fil": "tl", "nan": "zh-minnan", "nb": "no", "nn": "no", "wuu": "zh-wu", "yue": "zh-yue"}
_NOT_ONE = ("und", "mul")
_NO_SPEECH = ("zxx", "mis")
_OTHER_CHINESE = re.compile("(?:zh|cmn)-(?:x-|(?:[a-z]{2}-)?[a-z]{5,8}$)")
_PRIVATE = re.compile(r"x-|q[a-t][a-z]$")
_NAME = re.compile(r"\w[\w ,.'()-]*[\w)]")
_OURS_TO_WHISPER = {"jv": ("jw",), "nb": ("no",), "zh-yue": ("yue",), "yue": ("yue", "zh"), "fil": ("tl",)}


def from_whisper(code: str) -> str:
    """Our code of a language that Whisper names `code`."""
    return _WHISPER_TO_OURS.get(code, code)


def to_whisper(code: str, known: Collection[str]) -> str | None:
    """The code, of those that a model knows by Whisper's names, of one of our languages; None where it knows none.

    A dialect that has no code of its own goes by that of its language.
    """
    wanted = (*_OURS_TO_WHISPER.get(code.lower(), ()), code.lower(), base_language(code.lower()))
    return next((name for name in wanted if name in known), None)


def language_name(code: str) -> str:
    """English name of a code; the code itself where the report does not list the language."""
    return DIALECTS.get(code) or LANGUAGES.get(code) or code


def dialect_code(name: str) -> str | None:
    """Our code of one of the Chinese dialects of VoxCPM2, given as a tag (`zh-yue`, `wuu`, `zh-CN-sichuan`,
    `cmn-x-tianjin`), or by its English or Chinese name (`Sichuanese`, `四川话`), in any case; None for anything else.
    """
    wanted = " ".join(name.replace("_", "-").lower().split())
    for code, full in DIALECTS.items():
        if wanted in (code, full.lower()):
            return code
    words = [word for word in re.split(r"[-\s()]+", wanted) if word and word not in _ONLY_CHINESE]
    key = re.sub("(?:官?话|官?話|语|語|方言)$", "", " ".join(words))
    # These may have a region behind them.
    alone = words[0] if words and words[0] in ("cantonese", "wuu", "yue") else ""
    return _DIALECTS.get(" ".join(words)) or _DIALECTS.get(key) or _DIALECTS.get(alone)


def is_standard_chinese(name: str) -> bool:
    """Whether a name or tag means Mandarin as it is taught, or Chinese without saying which."""
    words = re.split(r"[-_\s]+", name.lower().strip())
    return set(words) <= _ONLY_CHINESE | {"standard", "putonghua", "普通话", "普通話", "国语", "國語"}


def language_code(name: str) -> str | None:
    """Our code of a language given as a BCP-47 tag (`en-US`, `zh-Hant-HK`), a code of ISO 639-1, 639-2 or 639-3, or an
    English name, in any case; None where it is given as undetermined (`und`) or as several (`mul`).

    Region and script are dropped, a language is named by its macrolanguage where models know no other (`cmn` is `zh`);
    the dialects of VoxCPM2 have tags of their own (`yue` is `zh-yue`; see `dialect_code`).

    Raises:
        UserError: it names no language, or a kind of Chinese that has no tag here.
    """
    wanted = name.strip().replace("_", "-").lower()
    for code, full in LANGUAGES.items():
        if wanted in (code, full.lower()):
            return code
    dialect = dialect_code(name)
    if dialect is not None:
        return dialect
    if _OTHER_CHINESE.match(wanted):
        raise UserError(f"{name!r} is a kind of Chinese without a tag here; write zh, or one of {', '.join(DIALECTS)}")
    found = _by_tag(wanted) or _by_name(wanted)
    if found in _NOT_ONE:
        return None
    if not found or found in _NO_SPEECH:
        raise UserError(f"{name!r} is no language; write its ISO 639 code, such as en, or its English name")
    return _TAG_TO_OURS.get(found, found)


def _by_tag(tag: str) -> str:
    """The language of a BCP-47 tag, by its macrolanguage; "" where the tag is none."""
    import langcodes
    from langcodes.tag_parser import LanguageTagError

    try:
        language = langcodes.Language.get(langcodes.standardize_tag(tag, macro=True))
    except (LanguageTagError, ValueError):
        return ""
    code = language.language or "und"
    return code if language.is_valid() and not _PRIVATE.match(code) else ""


def _by_name(name: str) -> str:
    """The language of an English name, which may have a region beside it; "" where there is none."""
    import langcodes

    if not _NAME.fullmatch(name):
        return ""
    try:
        return _by_tag(langcodes.find(name, language="en").to_tag())
    except LookupError:
        return ""


# Languages whose texts a detector of languages cannot tell apart, by its codes and ours.
FAMILIES: tuple[frozenset[str], ...] = (
    frozenset({"zh", "yue", "wuu"}),
    frozenset({"no", "nb", "nn"}),
    frozenset({"id", "ms"}),
    frozenset({"sr", "hr", "bs", "sh"}),
)


def same_family(one: str, other: str) -> bool:
    """Whether two codes name one language, or languages that written text does not tell apart."""
    a, b = base_language(one), base_language(other)
    return a == b or any(a in family and b in family for family in FAMILIES)


def base_language(code: str) -> str:
    """The language of a dialect (`zh-yue` to `zh`); a language is its own base."""
    return code.split("-")[0]
