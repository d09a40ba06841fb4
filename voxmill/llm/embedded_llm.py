"""SmolLM2-135M-Instruct on llama.cpp: the embedded writer of other wordings.

It is far too small to write from facts (it gets them wrong nearly always), so it is only given true sentences to put
in other words, and what it answers is checked word by word (`annotation/descriptions/describer.py`). One answer takes
about half a second on one thread. While the model is loaded, xllamacpp serves HTTP on a free loopback port, without a
key.
"""

from pathlib import Path

from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model
from voxmill.llm.prompt_files import Prompt
from voxmill.llm.reply_cache import Scalar


class EmbeddedLlmConfig(Config):
    """Which model and how it samples; with the same seed the same prompt gives the same answer."""

    model: str = "embedded"
    """`embedded`, or the path of another GGUF file."""
    temperature: float = 0.5
    """Sampling temperature; the seed is fixed, so the same prompt gives the same reply."""
    max_tokens: int = 60
    """Tokens of a reply at most."""
    threads: int = 1
    """CPU threads of the model."""


class EmbeddedLlm:
    """Puts sentences in other words.

    Args:
        prompt: has one value, `sentence`.
        weights: folder of the asset `smollm2-135m` (unused where `config.model` is a path).

    Raises:
        UserError: xllamacpp is not installed, or the file is not there.
    """

    def __init__(self, config: EmbeddedLlmConfig, prompt: Prompt, weights: Path | None = None):
        try:
            import xllamacpp
        except ImportError:
            raise UserError(
                "descriptions.writer=embedded needs xllamacpp, which is not installed; "
                "run: pip install xllamacpp, or set descriptions.writer=template"
            ) from None
        if config.model == "embedded":
            assert weights is not None
            path = weights / "SmolLM2-135M-Instruct.Q4_1.gguf"
        else:
            path = Path(local_model(config.model))
        if not path.is_file():
            raise UserError(f"descriptions.embedded.model={path}: no such file; name a GGUF file, or `embedded`")
        self.config, self.name, self._prompt = config, f"{path.stem} / {prompt.name}", prompt
        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx, options.n_parallel = 1024, 1
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = config.threads
        options.verbosity = -1
        self._server = xllamacpp.Server(options)

    @property
    def identity(self) -> dict[str, Scalar]:
        """What an answer depends on besides the sentence; a part of the cache's key."""
        return {**self.config.model_dump(exclude={"threads"}), "prompt": self._prompt.sha256, "file": self.name}

    @property
    def address(self) -> str:
        """Where llama.cpp's own OpenAI-compatible HTTP listens on loopback."""
        return str(self._server.listening_address)

    def rewrite(self, sentence: str, seed: int) -> str:
        """One line in other words, unchecked; '' where nothing came."""
        reply = self._server.handle_completions(
            {
                "prompt": self._prompt.fill(sentence=sentence).rstrip(),
                "temperature": self.config.temperature,
                "seed": seed,
                "max_tokens": self.config.max_tokens,
                "stop": ["\n"],
                # What earlier prompts left behind changes the last bits, and with them the answer.
                "cache_prompt": False,
            }
        )
        choices = reply.get("choices") or [{}]
        return str(choices[0].get("text") or "").strip()
