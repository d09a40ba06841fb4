"""Numbers, lengths and strangers' text as the report and the card show them."""

import math
import unicodedata


def visible(text: object) -> str:
    """Text whose control and direction characters can be seen, so that a file name cannot disguise itself."""
    shown = []
    for char in str(text):
        if char == "\n":
            shown.append("⏎")
        elif ord(char) < 32:
            shown.append(chr(0x2400 + ord(char)))
        elif unicodedata.category(char) in ("Cc", "Cs") or unicodedata.bidirectional(char) in (
            "RLO",
            "LRO",
            "RLE",
            "LRE",
            "PDF",
            "RLI",
            "LRI",
            "FSI",
            "PDI",
        ):
            shown.append(f"‹U+{ord(char):04X}›")
        else:
            shown.append(char)
    return "".join(shown)


def amount(seconds: float | None) -> str:
    """A length of audio or time in the unit a person would choose."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds >= 360_000:
        return f"{seconds / 3600:,.0f} h"
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    if seconds >= 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds else "0 s"


def number(value: object) -> str:
    """A number with as many digits as it deserves; a dash for what was not measured."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return visible(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    short = f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    return short.replace("-", "−")


def percent(part: float, whole: float) -> float:
    return max(0.0, min(100.0, 100.0 * part / whole)) if whole > 0 else 0.0
