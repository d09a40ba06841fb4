"""Which fit predicts the word error rates of a dataset, if any, and what is said of it in `run.json`."""

from functools import cache

from annotation.speech.recognisers.config import EMBEDDED, RecogniserConfig, recogniser_name
from annotation.speech.wer_prediction import WerFit, is_measured, read_fit, shipped_fit
from pipelines.config import AnnotateConfig
from pipelines.corpus.figures import TrustFigures
from voxmill.core.assets import asset_sha256
from voxmill.core.errors import UserError
from voxmill.core.hashing import fingerprint
from voxmill.core.storage import to_path
from voxmill.data.records import Candidate, ShardMetadata, to_json_text


def recogniser(config: RecogniserConfig) -> tuple[str, str]:
    """Name of a recogniser as fits and clips have it, and the hash of its weights, "" where none is known."""
    is_embedded = config.backend == "faster-whisper" and config.model == "embedded"
    return recogniser_name(config), asset_sha256(EMBEDDED) if is_embedded else ""


def wrote(name: str, clip: Candidate | ShardMetadata) -> bool:
    """Whether a recogniser wrote the text of a clip; of older versions, which had one for all, it is not known."""
    return clip.transcript is not None and (not clip.transcript.recogniser or clip.transcript.recogniser == name)


def fits(fit: WerFit, clip: Candidate) -> bool:
    """Whether a fit may tell how true a clip's text is: it is of the recogniser that wrote it, which told enough."""
    return wrote(fit.recogniser, clip) and is_measured(clip)


def wer_fit(config: AnnotateConfig) -> WerFit | None:
    """The fit that `select.wer_fit` names; None where it names none, or the project ships none for the recogniser.

    Raises:
        UserError: the file cannot be read, or is of another recogniser.
    """
    return _fit(config.select.wer_fit, *recogniser(config.label.transcription))


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
    fit, (name, _) = wer_fit(config), recogniser(config.label.transcription)
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
