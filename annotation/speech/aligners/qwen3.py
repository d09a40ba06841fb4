"""Words placed by Qwen3-ForcedAligner, a language model with an audio encoder that names times in steps of 80 ms.

transformers has the network and its processor. Weights are read in the layout that transformers writes and in the one
that Qwen publishes. The real ones were not at hand: what drawn ones give is compared with the published code.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation.speech.aligners.aligner import AlignedWords, SpokenClip, cannot_load, placed
from annotation.speech.word_edges import tighten
from voxmill.core.audio import RATE_16K
from voxmill.core.errors import UserError
from voxmill.core.machine.devices import limit_threads
from voxmill.data.languages import base_language

if TYPE_CHECKING:
    from torch import Tensor

LANGUAGES = frozenset(("de", "en", "es", "fr", "it", "ja", "ko", "pt", "ru", "yue", "zh"))
"""Those that it was trained on; words of others stay where they are."""
LONGEST_SECONDS = 300.0
TIMESTAMP, AUDIO = "<timestamp>", "<|audio_start|><|audio_pad|><|audio_end|>"
STEP_MILLISECONDS = 80.0
MODEL_TYPE = "qwen3_asr"
PUBLISHED_NAMES = {
    r"^thinker\.model\.": "model.language_model.",
    r"^thinker\.lm_head\.": "score.",
    r"^thinker\.audio_tower\.proj([12])\.": r"model.multi_modal_projector.linear_\1.",
    r"^thinker\.audio_tower\.": "model.audio_tower.",
}
"""Names of the published tensors as transformers has them."""

AUDIO_KEYS = (
    *("num_mel_bins", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "d_model"),
    *("activation_function", "n_window", "n_window_infer", "output_dim", "downsample_hidden_size"),
)
TEXT_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "max_position_embeddings", "attention_bias"),
)


class Qwen3Aligner:
    """One clip at a time, so that padding changes nothing.

    Args:
        name: of the model as it is configured. place: a folder or hub id.

    Raises:
        UserError: it cannot be loaded, or is not a forced aligner.
    """

    def __init__(self, name: str, place: str, *, device: str, threads: int):
        import torch
        from transformers import AutoTokenizer, PreTrainedConfig, Qwen3ASRForTokenClassification, Qwen3ASRProcessor
        from transformers.models.qwen3_asr.feature_extraction_qwen3_asr import Qwen3ASRFeatureExtractor

        limit_threads(threads)
        self.name, self._device = f"qwen3 ({name})", device
        models: Any = Qwen3ASRForTokenClassification
        extractors: Any = Qwen3ASRFeatureExtractor
        try:
            given, _ = PreTrainedConfig.get_config_dict(place)
            if given.get("model_type") != MODEL_TYPE:
                raise ValueError(f"it is a {given.get('model_type')}")
            is_published = "thinker_config" in given
            more = {"config": _of_published(given), "key_mapping": PUBLISHED_NAMES} if is_published else {}
            model, info = models.from_pretrained(place, dtype=torch.float32, output_loading_info=True, **more)
            tokenizer: Any = AutoTokenizer.from_pretrained(place)
            # Its input is the same for all of its sizes: 128 mel bands of 16 kHz.
            self._processor: Any = Qwen3ASRProcessor(feature_extractor=extractors(), tokenizer=tokenizer)
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError, RuntimeError) as error:
            raise cannot_load(name, "Qwen3-ForcedAligner", error) from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise UserError(f"label.alignment.model={name}: has no weights for {missing[0]}; name Qwen3-ForcedAligner")
        self._model: Any = model.to(device).eval()
        self._timestamp: int = model.config.timestamp_token_id
        if tokenizer.convert_tokens_to_ids(TIMESTAMP) != self._timestamp:
            raise UserError(f"label.alignment.model={name}: its tokenizer has no {TIMESTAMP}; name Qwen3-ForcedAligner")
        self._step = float(given.get("timestamp_segment_time", STEP_MILLISECONDS))

    def align(self, clips: Sequence[SpokenClip]) -> list[AlignedWords | None]:
        """One result a clip, None in languages that the model does not know and above five minutes."""
        return [self._align(clip) for clip in clips]

    def _align(self, clip: SpokenClip) -> AlignedWords | None:
        seconds = len(clip.audio) / RATE_16K
        said = {number: own for number, word in enumerate(clip.words) if (own := _kept(word.word))}
        if not said or not 0 < seconds <= LONGEST_SECONDS or base_language(clip.language) not in LANGUAGES:
            return None
        words = [*said.values()]
        logits, ids = self.logits(clip.audio, words)
        # Puts in order what the model turned around, as the published code does.
        (items,) = self._processor.decode_forced_alignment(logits, ids, [words], self._timestamp, self._step)
        times = {number: (one["start_time"], one["end_time"]) for number, one in zip(said, items, strict=True)}
        aligned = placed(clip.words, times, seconds)
        assert aligned is not None
        return AlignedWords(tuple(tighten(list(aligned.words), clip.audio)), aligned.between)

    def logits(self, audio: np.ndarray, words: Sequence[str]) -> tuple["Tensor", "Tensor"]:
        """Of each step of time at each token, [1, tokens, steps], and the tokens, [1, tokens]; two timestamps a word.

        Args:
            audio: float32 [samples] at 16 kHz. words: one at least, letters and figures alone.
        """
        import torch

        text = AUDIO + "".join(f"{word}{TIMESTAMP}{TIMESTAMP}" for word in words)
        inputs = self._processor(text=[text], audio=[audio], return_tensors="pt").to(self._device)
        inputs.pop("num_audio_tokens", None)
        with torch.inference_mode():
            return self._model(**inputs).logits, inputs["input_ids"]


def _kept(word: str) -> str:
    """Letters, figures and apostrophes of a word: what the model was trained on."""
    return "".join(char for char in word if char == "'" or char.isalnum())


def _of_published(given: Mapping[str, Any]) -> Any:
    """transformers' configuration of a published model, of which it takes what shapes and computes."""
    from transformers import Qwen3ASRConfig

    thinker = given["thinker_config"]

    audio, text = (
        {key: section[key] for key in keys if key in section}
        for section, keys in ((thinker["audio_config"], AUDIO_KEYS), (thinker["text_config"], TEXT_KEYS))
    )
    # Rotary positions of its three axes are the same where all is text and sound.
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": thinker["text_config"]["rope_theta"]}
    configs: Any = Qwen3ASRConfig
    return configs(
        audio_config=audio,
        text_config=text,
        audio_token_id=thinker["audio_token_id"],
        timestamp_token_id=given["timestamp_token_id"],
        num_labels=thinker["classify_num"],
    )
