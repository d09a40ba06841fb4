"""Which descriptions a mode shows: of the voice (`design`), of the delivery (`style`), or of both in one text.

Report 3.5: voice design is supervised by 'natural-language voice and style descriptions'; 3.6: two axes 'that mirror
the target capabilities', with a reference for the voice in controllable cloning.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator

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
    weights = weights_of(mode, shares) or (0.0,) * len(DESCRIPTION_AXES)
    return tuple(axis for axis, weight in zip(DESCRIPTION_AXES, weights, strict=True) if weight > 0)


def weights_of(mode: Mode, shares: DescriptionShares) -> tuple[float, ...] | None:
    """A weight for each of `DESCRIPTION_AXES`; None for a mode without descriptions."""
    if mode != "design" and mode != "controllable":
        return None
    return tuple(shares[mode].get(axis, 0.0) for axis in DESCRIPTION_AXES)


def _of_both_modes(shares: dict[DescribedMode, dict[Axis, float]]) -> dict[DescribedMode, dict[Axis, float]]:
    for mode, of_mode in shares.items():
        if any(share < 0 for share in of_mode.values()):
            raise ValueError(f"{mode}: shares may not be negative")
        if not sum(of_mode.values()) > 0:
            raise ValueError(
                f"{mode}: all shares are 0; name a kind that it shows, or leave the mode out of the mixture"
            )
    return {**DEFAULT_SHARES, **shares}


KindShares = Annotated[dict[DescribedMode, dict[Axis, float]], AfterValidator(_of_both_modes)]
"""Shares of a config, none negative and not all 0; a mode that is not named has the default's."""
