"""The 30 languages and 9 Chinese dialects of VoxCPM2 by name (report Table 8 and the model's own list)."""

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

# Errors are counted in characters for these, in words for the others: report Table 8.
CHARACTER_BASED = frozenset({"ar", "he", "hi", "ja", "km", "ko", "lo", "my", "sw", "th", "zh"})

_WHISPER_TO_OURS = {"jw": "jv", "nn": "no", "yue": "zh-yue"}


def from_whisper(code: str) -> str:
    """Our code of a language that Whisper names `code`."""
    return _WHISPER_TO_OURS.get(code, code)


def language_name(code: str) -> str:
    """English name of a code; the code itself where the report does not list the language."""
    return DIALECTS.get(code) or LANGUAGES.get(code) or code


def language_code(name: str) -> str:
    """Code of a language given by code or by English name, in any case.

    Raises:
        UserError: neither a code nor a name of the 30 languages and 9 dialects.
    """
    wanted = name.strip().lower()
    for code, full in (LANGUAGES | DIALECTS).items():
        if wanted in (code, full.lower()):
            return code
    raise UserError(
        f"language {name!r} is not one of the 30 languages and 9 Chinese dialects; see voxmill/data/languages.py"
    )


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
