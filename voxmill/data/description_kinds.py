"""Which descriptions a mode shows: of the voice (`design`), of the delivery (`style`), or of both in one text.

Report 3.5: voice design is supervised by 'natural-language voice and style descriptions'; 3.6: two axes 'that mirror
the target capabilities', with a reference for the voice in controllable cloning.
"""

from collections.abc import Mapping
from typing import Literal

from voxmill.data.records import DESCRIPTION_AXES, Axis, Mode

DescribedMode = Literal["design", "controllable"]
DESCRIBED_MODES: tuple[DescribedMode, ...] = ("design", "controllable")
DescriptionShares = Mapping[DescribedMode, Mapping[Axis, float]]
DEFAULT_SHARES: dict[DescribedMode, dict[Axis, float]] = {
    "design": {"design": 1.0, "both": 1.0, "style": 0.5},
    "controllable": {"style": 1.0, "both": 0.25},
}
"""Shares of the kinds among those that a clip has (assumed; the report gives none)."""


def kinds_of(mode: Mode, shares: DescriptionShares) -> tuple[Axis, ...]:
    """The kinds that a mode shows; none for a mode without descriptions."""
    if mode != "design" and mode != "controllable":
        return ()
    return tuple(axis for axis in DESCRIPTION_AXES if shares[mode].get(axis, 0.0) > 0)


def weights_of(mode: Mode, shares: DescriptionShares) -> tuple[float, ...] | None:
    """A weight for each of `DESCRIPTION_AXES`; None for a mode without descriptions."""
    if mode != "design" and mode != "controllable":
        return None
    return tuple(shares[mode].get(axis, 0.0) for axis in DESCRIPTION_AXES)


def wrong_shares(shares: DescriptionShares) -> str:
    """What is wrong with shares, beginning with the mode; "" for nothing."""
    for mode, of_mode in shares.items():
        if any(share < 0 for share in of_mode.values()):
            return f"{mode}: shares may not be negative"
        if not sum(of_mode.values()) > 0:
            return f"{mode}: all shares are 0; name a kind that it shows, or leave the mode out of the mixture"
    return ""
