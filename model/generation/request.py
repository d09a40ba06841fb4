"""A text to be spoken, in which voice, and how long the speech may be (report 3.7, spec 4.1 and 4.5)."""

from dataclasses import dataclass, field
from typing import Protocol

from pydantic import Field

from model.config import VoxCPM2Config
from model.generation.voice import Voice
from model.sequence.layouts import Layout, arrange, compose_text
from voxmill.core.config import Config
from voxmill.core.errors import UserError

PATCHES_PER_TOKEN = 6.0
"""Speech of this many patches a text token (0.96 s) does not follow the text any more: a runaway."""
SPARE_PATCHES = 10
"""On top of `PATCHES_PER_TOKEN` in the limit of a request."""


class Tokenizer(Protocol):
    """A text tokenizer, as far as requests need it."""

    def encode(self, text: str) -> list[int]:
        """Token ids without BOS and EOS."""


class Settings(Config):
    """How a request is sampled. Lengths in patches (160 ms)."""

    steps: int = Field(default=10, ge=2, le=1000)
    """Euler steps; the first is CFG-Zero*'s, which does not move."""
    guidance: float = Field(default=2.0, ge=0, le=100)
    """Weight of the classifier-free guidance, 1.0 to 3.0 in practice; 1.5 against buzzing in long texts."""
    min_len: int = Field(default=2, ge=0)
    """The stop predictor is ignored before patch `min_len` + 2."""
    max_len: int = Field(default=4096, ge=1)
    """The text sets its own limit, 6 patches a token and 10; this one is on top."""
    attempts: int = Field(default=3, ge=1)
    """A runaway is tried again with the next seed, up to so many attempts; the last one stands. Not when streaming."""


@dataclass(frozen=True)
class Request:
    """One text to be spoken."""

    text: str
    description: str | None = None
    """Such as "a warm, deep voice"; alone or with a reference, not with a prompt."""
    voice: Voice = field(default_factory=Voice)
    settings: Settings = Settings()
    seed: int | None = None
    """0 or more; None draws one, which `Speech.seed` holds."""


@dataclass(frozen=True)
class Prepared:
    """A request in the model's terms."""

    layout: Layout
    num_tokens: int
    """Text tokens to be spoken: description included, prompt text not."""
    limit: int
    """Patches at most."""

    def ran_away(self, num_patches: int) -> bool:
        """Whether so many patches are more speech than the text can have."""
        return num_patches >= PATCHES_PER_TOKEN * self.num_tokens


def prepare(request: Request, tokenizer: Tokenizer, config: VoxCPM2Config) -> Prepared:
    """Tokens, patches and limits of a request.

    Raises:
        UserError: an empty text, a description together with a prompt, or more positions than the model takes; names
            their number. Nothing is cut.
    """
    voice, settings = request.voice, request.settings
    whole = compose_text(request.text, description=request.description, prompt_text=voice.prompt_text)
    spoken = compose_text(request.text, description=request.description) if voice.has_prompt else whole
    layout = arrange(
        tokenizer.encode(whole),
        reference_RPD=voice.reference_RPD,
        target_GPD=voice.prompt_TPD,
        closed=False,
        patch_shape=(config.patch_size, config.feat_dim),
        max_length=config.max_length,
    )
    num_tokens = len(tokenizer.encode(spoken))
    # The last patch is predicted by a position and takes none itself.
    room = config.max_length - len(layout) + 1
    shortest = min(settings.min_len + 2, settings.max_len)
    if room < shortest:
        raise UserError(
            f"{len(layout)} positions leave room for {room} of at least {shortest} patches of speech, the model takes "
            f"{config.max_length}; shorten the text or the audio"
        )
    limit = min(int(PATCHES_PER_TOKEN * num_tokens + SPARE_PATCHES), settings.max_len, room)
    return Prepared(layout, num_tokens, limit)
