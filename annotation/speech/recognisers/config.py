"""Which recogniser writes the text, as a recipe says it; imports no model."""

from typing import Literal, Self

from pydantic import Field, model_validator

from voxmill.core.config import Config

EMBEDDED = "whisper-base"
"""The asset that `model: embedded` stands for."""

Backend = Literal["faster-whisper", "transformers", "funasr", "endpoint"]


class RecognitionEndpointConfig(Config):
    """A server that answers `/audio/transcriptions` as OpenAI's does."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base URL of an OpenAI-compatible server, before `/audio/transcriptions`."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, which never stands in a recipe; every node needs it."""
    response_format: Literal["verbose_json", "json"] = "verbose_json"
    """verbose_json: with word times and log probabilities, where the server tells them; json: the text alone."""
    concurrent_requests: int = Field(4, ge=1)
    """Requests in progress at once, of each worker (see `run.workers`)."""
    requests_per_minute: float = Field(600.0, gt=0)
    """Requests a minute at most, of each worker."""
    timeout_seconds: float = Field(120.0, gt=0)
    """Seconds until an attempt without a whole answer counts as failed."""
    retries: int = Field(4, ge=0)
    """How often a failed request is sent again, after growing waits or what the server asks for."""


class FunasrConfig(Config):
    """What FunASR's models need beside their name."""

    hub: Literal["ms", "hf"] = "ms"
    """Where a model that is no folder is downloaded from: ModelScope (ms) or Hugging Face (hf)."""
    punctuation: str | None = None
    """Model that punctuates Paraformer's text, such as `ct-punc`; null for none. SenseVoice punctuates by itself."""


class RecogniserConfig(Config):
    """One recogniser."""

    backend: Backend = "faster-whisper"
    """What runs the model: faster-whisper, a transformers ASR pipeline, FunASR, or an OpenAI-compatible endpoint."""
    model: str = "embedded"
    """`embedded` (Whisper base), or the backend's model by folder, URI, hub id or name, such as `large-v3`."""
    prompt: str | None = None
    """Text before the recording, for spelling, names and punctuation; for Whisper models and endpoints."""
    funasr: FunasrConfig = FunasrConfig()
    endpoint: RecognitionEndpointConfig = RecognitionEndpointConfig()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.backend != "faster-whisper" and self.model == "embedded":
            raise ValueError(
                f"backend {self.backend} needs a model, and the embedded one is for faster-whisper; name one"
            )
        if self.backend == "funasr" and self.prompt is not None:
            raise ValueError("FunASR's models take no prompt; leave prompt out")
        return self


def recogniser_name(config: RecogniserConfig) -> str:
    """How clips, fits and reports name a recogniser; a Whisper that faster-whisper runs by its model alone."""
    if config.backend == "faster-whisper":
        return EMBEDDED if config.model == "embedded" else config.model
    # An endpoint's address is nobody's concern who reads the dataset.
    return f"{config.backend} {config.model}"
