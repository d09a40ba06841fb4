"""Which aligner gives words their times."""

from typing import Literal

from pydantic import model_validator

from voxmill.core.config import Config


class AlignmentConfig(Config):
    """How the words of a text are placed in time; the text stays as it is."""

    backend: Literal["whisper", "ctc", "qwen3", "none"] = "whisper"
    """Cross-attention of the recogniser's Whisper, a CTC model, Qwen3-ForcedAligner, or shares by characters (none)."""
    model: str | None = None
    """Of ctc and qwen3: a folder, URI or hub id, such as MahmoudAshraf/mms-300m-1130-forced-aligner."""
    letters: bool = True
    """Words that whisper has placed are moved by a model of letters that each window trains."""
    romanise: bool = False
    """Of ctc: words are written in Latin letters by uroman first, for models of the letters a to z alone."""

    @model_validator(mode="after")
    def _has_its_model(self) -> "AlignmentConfig":
        needs = self.backend in ("ctc", "qwen3")
        if needs and self.model is None:
            raise ValueError(f"backend {self.backend} needs a model; name its folder or hub id in alignment.model")
        if self.model is not None and not needs:
            raise ValueError(f"backend {self.backend} has no model of its own; leave alignment.model out")
        if self.romanise and self.backend != "ctc":
            raise ValueError("alignment.romanise is of backend ctc alone; leave it out")
        return self
