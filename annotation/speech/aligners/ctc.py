"""Words placed by a CTC model of letters: wav2vec2, HuBERT, WavLM or MMS, as transformers loads them.

No such weights were at hand: this has been run on small random ones alone, whose frames are compared with transformers'
own and whose path is compared with all possible ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from annotation.speech.aligners.aligner import AlignedWords, SpokenClip, cannot_load, placed
from annotation.speech.aligners.ctc_letters import Letters
from annotation.speech.aligners.ctc_path import best_path
from annotation.speech.word_edges import tighten
from voxmill.core.audio import RATE_16K
from voxmill.core.errors import UserError
from voxmill.core.machine.devices import limit_threads

CHUNK_SECONDS, CONTEXT_SECONDS = 30, 2
"""What a model takes at once, and how much of its neighbours with it: attention grows with the square of the frames."""
MIN_SAMPLES = RATE_16K // 10
"""Less than two frames of any model."""
BLANKS = ("<blank>", "[blank]")
"""Names of the blank where it is not the padding, as it is in wav2vec2's vocabularies."""


class CtcAligner:
    """The likeliest path of a clip's letters through the frames of a CTC model.

    One clip at a time, long ones in overlapping chunks, so that a clip's words depend on nothing else. Words end
    where the sound of their last letter does: a CTC model marks a letter by its onset.

    Args:
        name: of the model as it is configured. place: a folder or hub id. romanise: spells words in Latin letters.

    Raises:
        UserError: it cannot be loaded, takes no waveform of 16 kHz, or has no letters; or uroman is not installed.
    """

    def __init__(self, name: str, place: str, *, romanise: bool, device: str, threads: int):
        import torch
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        limit_threads(threads)
        self.name, self._device = f"ctc ({name}{', uroman' if romanise else ''})", device
        extractors: Any = AutoFeatureExtractor
        try:
            self._extract = extractors.from_pretrained(place)
            tokenizer: Any = AutoTokenizer.from_pretrained(place)
            model, info = AutoModelForCTC.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise cannot_load(name, "a CTC model", error) from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise UserError(f"label.alignment.model={name}: has no weights for {missing[0]}; name a CTC model")
        self._model: Any = model.to(device).eval()
        ratio = getattr(model.config, "inputs_to_logits_ratio", None)
        rate = getattr(self._extract, "sampling_rate", None)
        if ratio is None or rate != RATE_16K or self._extract.model_input_names[0] != "input_values":
            raise UserError(f"label.alignment.model={name}: takes no waveform of 16 kHz; name a wav2vec2 or MMS model")
        if getattr(model.config, "adapter_attn_dim", None) is not None:
            raise UserError(
                f"label.alignment.model={name}: has adapters by language, which are not read; "
                "name a model of one alphabet, such as MahmoudAshraf/mms-300m-1130-forced-aligner"
            )
        self._hop: int = ratio
        # A tokenizer may add tokens, such as a word delimiter, that the model was trained without.
        size = model.config.vocab_size
        vocabulary: dict[str, int] = {one: token for one, token in tokenizer.get_vocab().items() if token < size}
        self._letters = Letters.of(vocabulary, tokenizer.all_special_tokens, _romaniser() if romanise else None)
        if not any(map(str.isalpha, self._letters.tokens)):
            raise UserError(f"label.alignment.model={name}: its vocabulary has no letters; name a CTC model of letters")
        blank = next((vocabulary[one] for one in BLANKS if one in vocabulary), tokenizer.pad_token_id)
        if blank is None or blank >= size:
            raise UserError(f"label.alignment.model={name}: its vocabulary has no blank; name a CTC model of letters")
        self._blank: int = blank

    def align(self, clips: Sequence[SpokenClip]) -> list[AlignedWords | None]:
        """One result a clip, None where none of its letters is known or there are too many for its length."""
        return [self._align(clip) for clip in clips]

    def _align(self, clip: SpokenClip) -> AlignedWords | None:
        spelt = {number: self._letters.spell(word.word) for number, word in enumerate(clip.words)}
        tokens, owners = list[int](), list[int]()
        for number, own in spelt.items():
            if own and tokens and self._letters.delimiter is not None:
                tokens.append(self._letters.delimiter)
                owners.append(-1)
            tokens += own
            owners += [number] * len(own)
        if not tokens or len(clip.audio) < MIN_SAMPLES:
            return None
        path = best_path(self.log_probabilities(clip.audio), tokens, self._blank)
        if path is None:
            return None
        # Behind the last token, for the blanks.
        of_frame = np.array([*owners, -1])[path]
        times = {}
        for number in dict.fromkeys(owner for owner in owners if owner >= 0):
            frames = np.flatnonzero(of_frame == number)
            times[number] = (frames[0] * self._hop / RATE_16K, (frames[-1] + 1) * self._hop / RATE_16K)
        aligned = placed(clip.words, times, len(clip.audio) / RATE_16K)
        assert aligned is not None
        return AlignedWords(tuple(tighten(list(aligned.words), clip.audio)), aligned.between)

    def log_probabilities(self, audio: np.ndarray) -> np.ndarray:
        """Of each token of the vocabulary in each frame, float32 [T, V], of float32 [samples] at 16 kHz."""
        import torch

        values = self._extract(audio, sampling_rate=RATE_16K, return_tensors="np").input_values[0]
        chunk, context = CHUNK_SECONDS * RATE_16K // self._hop, CONTEXT_SECONDS * RATE_16K // self._hop
        frames = max(len(values) // self._hop, 1)
        parts = []
        for first in range(0, frames, chunk):
            # What is left over may be too little for a chunk of its own.
            last = frames if frames - first - chunk < context else first + chunk
            low = max(first - context, 0)
            piece = torch.from_numpy(values[low * self._hop : (last + context) * self._hop])
            with torch.inference_mode():
                logits = self._model(piece[None].to(self._device)).logits[0].float().log_softmax(-1).cpu().numpy()
            parts.append(logits[first - low : None if last == frames else last - low])
            if last == frames:
                break
        return np.concatenate(parts)


def _romaniser() -> Callable[[str], str]:
    """uroman, whose tables take some seconds to read."""
    try:
        from uroman import Uroman
    except ImportError:
        raise UserError("label.alignment.romanise needs uroman; pip install 'voxmill[align]'") from None
    table = Uroman()
    return lambda word: str(table.romanize_string(word))
