"""Fits of word error rates for tests, and clips to predict of."""

from typing import Any

from annotation.speech.wer_prediction import FORMAT, Fifth, Term, WerFit


def made_fit(**changes: Any) -> WerFit:
    """One on log probability alone: -2 and less is always wrong, 0 never."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "recogniser": "whisper-test",
        "sha256": "",
        "voxmill": "0",
        "date": "2026-01-01",
        "recordings": "made up",
        "bias": 0.0,
        "terms": (Term(measure="log_probability", low=-2.0, high=0.0, weight=-1.0),),
        "others": 0.0,
        "curve": ((0.0, 0.0), (2.0, 1.0)),
        "fitted_on": (),
        "tried_on": (),
        "fifths": (Fifth(clips=1, predicted=0.1, true=0.2),),
        "left_out": 0,
    }
    return WerFit(**values | changes)
