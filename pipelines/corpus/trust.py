"""Which fit predicts the word error rates of a dataset, if any, and what is said of it in `run.json`."""

from functools import cache

from annotation.speech.wer_prediction import WerFit, read_fit, shipped_fit
from pipelines.config import AnnotateConfig
from pipelines.corpus.figures import TrustFigures
from voxmill.core.assets import asset_sha256
from voxmill.core.errors import UserError
from voxmill.core.hashing import fingerprint
from voxmill.core.storage import to_path
from voxmill.data.records import to_json_text

EMBEDDED = "whisper-base"
"""The asset that `transcription.model: embedded` stands for."""


def recogniser(model: str) -> tuple[str, str]:
    """Name of `label.transcription.model` as fits have it, and the hash of its weights, "" where none is known."""
    return (EMBEDDED, asset_sha256(EMBEDDED)) if model == "embedded" else (model, "")


def wer_fit(config: AnnotateConfig) -> WerFit | None:
    """The fit that `select.wer_fit` names; None where it names none, or the project ships none for the recogniser.

    Raises:
        UserError: the file cannot be read, or is of another recogniser.
    """
    return _fit(config.select.wer_fit, *recogniser(config.label.transcription.model))


@cache
def _fit(wanted: str | None, name: str, sha256: str) -> WerFit | None:
    if wanted is None:
        return None
    if wanted == "shipped":
        return shipped_fit(name, sha256)
    fit = read_fit(to_path(wanted))
    if (fit.recogniser, fit.sha256) != (name, sha256):
        raise UserError(
            f"select.wer_fit={wanted}: made for {fit.recogniser}, and the recogniser is {name}; "
            "make one for it with `voxmill fit-trust`"
        )
    return fit


def fit_key(config: AnnotateConfig) -> str:
    """Fingerprint of the fit's numbers, "" without one."""
    fit = wer_fit(config)
    return "" if fit is None else fingerprint([to_json_text(fit)])


def trust_figures(config: AnnotateConfig) -> TrustFigures:
    """What `run.json` says of the fit, or of there being none."""
    fit, (name, _) = wer_fit(config), recogniser(config.label.transcription.model)
    if fit is None:
        return {
            "recogniser": name,
            "fit": None,
            "date": "",
            "recordings": "",
            "fitted_clips": 0,
            "fitted_voices": [],
            "tried_clips": 0,
            "tried_voices": [],
            "fifths": [],
        }
    return {
        "recogniser": name,
        "fit": config.select.wer_fit,
        "date": fit.date,
        "recordings": fit.recordings,
        "fitted_clips": sum(row.clips for row in fit.fitted_on),
        "fitted_voices": [row.voice for row in fit.fitted_on],
        "tried_clips": sum(row.clips for row in fit.tried_on),
        "tried_voices": [row.voice for row in fit.tried_on],
        "fifths": [{"clips": row.clips, "predicted": row.predicted, "true": row.true} for row in fit.fifths],
    }
