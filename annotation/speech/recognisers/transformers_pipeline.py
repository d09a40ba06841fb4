"""Any model that transformers' ASR pipeline runs: Whisper, wav2vec2 and other CTC models, by folder or hub id.

It tells no probabilities. CTC models place their words in time, and Whisper does where its checkpoint says which of its
attention heads know it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from annotation.speech.recognisers.pieces import PieceText, TimedWord
from voxmill.core.errors import UserError, first_line
from voxmill.core.local_copies import local_model
from voxmill.core.machine.devices import limit_threads
from voxmill.data.languages import CHARACTER_BASED, base_language, to_whisper

CHUNK_SECONDS = 30.0


class TransformersRecogniser:
    """transformers' `automatic-speech-recognition` pipeline over pieces.

    On a CPU one piece at a time, as fast as several. On a GPU Whisper takes several; others pad what is shorter, which
    changes their texts, and take one.

    Args:
        model: folder, URI or hub id.
        beam_size: beams of models that have a decoder.
        batch_seconds: of audio that Whisper takes at once on a GPU.
        threads: CPU threads.

    Raises:
        UserError: it cannot be loaded, is no model for recognition, or takes no prompt.
    """

    def __init__(
        self,
        model: str,
        prompt: str | None = None,
        device: str = "cpu",
        *,
        beam_size: int = 1,
        batch_seconds: float = 120.0,
        threads: int = 1,
    ):
        limit_threads(threads)
        try:
            self._pipeline = _load(local_model(model), device)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise UserError(
                f"transcription.model={model}: transformers cannot load it as a recogniser ({first_line(error)[:200]})"
            ) from error
        self._kind = str(self._pipeline.type)
        network = self._pipeline.model
        if getattr(network.config, "adapter_attn_dim", None):
            raise UserError(
                f"transcription.model={model} has an adapter for each language, and which one is not to be chosen "
                "here; name a checkpoint of one language, for it by transcription.by_language"
            )
        self._is_whisper = self._kind == "seq2seq_whisper"
        if prompt is not None and not self._is_whisper:
            raise UserError(f"transcription.prompt: {model} takes none, only Whisper does; leave it out")
        rate = self._pipeline.feature_extractor.sampling_rate
        if rate != 16000:
            raise UserError(f"transcription.model={model} is for {rate} Hz; name one for 16000 Hz")
        self._generate: dict[str, object] = {"num_beams": beam_size} if "seq2seq" in self._kind else {}
        if prompt is not None:
            self._generate["prompt_ids"] = self._pipeline.tokenizer.get_prompt_ids(prompt, return_tensors="pt").to(
                device
            )
        self._is_multilingual = self._is_whisper and bool(getattr(network.generation_config, "is_multilingual", True))
        if self._is_whisper:
            has_heads = getattr(network.generation_config, "alignment_heads", None) is not None
            self.aligner = "whisper of transformers" if has_heads else ""
        else:
            self.aligner = "ctc of transformers" if self._kind == "ctc" else ""
        self._batch_size = max(int(batch_seconds / CHUNK_SECONDS), 1) if self._is_whisper and device != "cpu" else 1

    def __call__(self, pieces: Sequence[np.ndarray], languages: Sequence[str]) -> list[PieceText]:
        texts: dict[int, PieceText] = {}
        for language in sorted(set(languages)):
            numbers = [number for number, own in enumerate(languages) if own == language]
            texts |= dict(zip(numbers, self._of_language([pieces[n] for n in numbers], language), strict=True))
        return [texts[number] for number in range(len(pieces))]

    def _of_language(self, pieces: Sequence[np.ndarray], language: str) -> list[PieceText]:
        options: dict[str, object] = {}
        if self.aligner:
            # Characters where words are not told apart by spaces.
            by_character = not self._is_whisper and base_language(language) in CHARACTER_BASED
            options["return_timestamps"] = "char" if by_character else "word"
        if self._is_whisper:
            code = self._code(language)
            if code is None:
                return [PieceText(text="", words=()) for _ in pieces]
            asked = {"language": code, "task": "transcribe"} if self._is_multilingual else {}
            options["generate_kwargs"] = {**self._generate, **asked}
        elif self._generate:
            options["generate_kwargs"] = self._generate
        # It takes out of a dictionary what it reads.
        inputs = [{"raw": piece, "sampling_rate": 16000} for piece in pieces]
        said = self._pipeline(inputs, batch_size=self._batch_size, **options)
        return [self._text(one, len(piece) / 16000) for one, piece in zip(said, pieces, strict=True)]

    def _plain(self, text: str) -> str:
        """Without the tokens that stand for no character, such as `<unk>`, which CTC models write out."""
        for token in self._pipeline.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text

    def _code(self, language: str) -> str | None:
        """Whisper's code of a language, None of one that it does not know."""
        told = self._pipeline.model.generation_config.lang_to_id if self._is_multilingual else {"<|en|>": 0}
        return to_whisper(language, [token.strip("<|>") for token in told])

    def _text(self, said: dict[str, Any], seconds: float) -> PieceText:
        text = " ".join(self._plain(str(said["text"])).split())
        if not self.aligner:
            return PieceText(text=text)
        words = []
        for chunk in said["chunks"]:
            start, end = chunk["timestamp"]
            word = self._plain(str(chunk["text"]))
            if word.strip():
                # Whisper leaves out the end of a last word that the piece's end cuts off.
                last = seconds if end is None else min(float(end), seconds)
                words.append(TimedWord(word=word, start=min(float(start), last), end=last))
        return PieceText(text=text, words=tuple(words))


def _load(place: str, device: str) -> Any:
    """The pipeline of a whole recogniser.

    Raises:
        ValueError: the checkpoint is of another kind, or lacks weights, which transformers would draw at random.
    """
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CTC_MAPPING_NAMES,
        MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    named = transformers.AutoConfig.from_pretrained(place).architectures or [""]
    recognisers = {*MODEL_FOR_CTC_MAPPING_NAMES.values(), *MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES.values()}
    if named[0] not in recognisers:
        raise ValueError(f"its config.json says {named[0] or 'nothing'}, which is no CTC or sequence-to-sequence model")
    kind: Any = getattr(transformers, named[0])
    model, info = kind.from_pretrained(place, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"its weights lack {', '.join(sorted(info['missing_keys'])[:3])}")
    return transformers.pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=transformers.AutoTokenizer.from_pretrained(place),
        feature_extractor=transformers.AutoFeatureExtractor.from_pretrained(place),  # type: ignore[no-untyped-call]
        device=device,
    )
