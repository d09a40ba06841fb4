"""Age and gender by audeering's wav2vec2 models (Burkhardt et al. 2023, arXiv:2306.16962): two heads on one network.

Their checkpoints are none of transformers' own classes: `wav2vec2.*`, then `age.*` and `gender.*`, each a dense layer,
a tanh and a projection of the mean over time. Age is a number, 1 for a hundred years; gender's classes are female, male
and child, in this order. No published weights were at hand: the output on weights drawn at random is that of the
published forward pass.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from annotation.voice.audio_classifier import RATE, refuse_missing, refuse_rate

BANDS = ("child", "young", "middle-aged", "elderly")
BAND_YEARS = (13.0, 40.0, 60.0)
"""Where the bands after the first begin."""
GENDERS = ("female", "male", "child")


def has_age_gender_heads(place: str) -> bool:
    """Whether a model says that it is a wav2vec2 of a class that transformers does not have."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(place)
    except (OSError, ValueError):
        # Loading it names what is wrong.
        return False
    names = config.architectures or []
    return config.model_type == "wav2vec2" and not any(hasattr(transformers, name) for name in names)


class AgeGender:
    """Bands of age, or female, male and child, of such a model, one clip at a time.

    Args:
        years_error: standard deviation, in years, of the true age around the number that the model gives; it makes a
            number the probabilities of the bands.

    Raises:
        ValueError: the files do not have these heads. OSError: there are none.
    """

    def __init__(self, answer: Literal["gender", "emotion", "age"], place: str, device: str, years_error: float):
        self._answers_age, self._device, self._years_error = answer == "age", device, years_error
        self.labels: Sequence[str] = BANDS if self._answers_age else GENDERS
        self._extract, self._network = _load(place, device)

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        import torch

        inputs = self._extract(clip, sampling_rate=RATE, return_tensors="pt")["input_values"].to(self._device)
        with torch.inference_mode():
            years, genders_C = self._network(inputs)
        if self._answers_age:
            return band_probabilities(float(years), self._years_error)
        scores: np.ndarray = genders_C.float().softmax(-1).cpu().numpy()
        return scores


def band_probabilities(years: float, error: float) -> np.ndarray:
    """Probabilities [4] of the bands of age, float32, where the true age is normally distributed around `years`."""
    from scipy.special import ndtr

    below = ndtr((np.array(BAND_YEARS) - years) / error)
    probabilities: np.ndarray = np.diff(below, prepend=0.0, append=1.0).astype(np.float32)
    return probabilities


@cache
def _load(place: str, device: str) -> tuple[Any, Any]:
    """The feature extractor and the network of a model, once a process: age and gender share it."""
    from torch import Tensor, nn
    from transformers import AutoFeatureExtractor, Wav2Vec2Config, Wav2Vec2Model, Wav2Vec2PreTrainedModel

    class Head(nn.Module):
        def __init__(self, config: Wav2Vec2Config, num_outputs: int):
            super().__init__()
            self.dense = nn.Linear(config.hidden_size, config.hidden_size)
            self.out_proj = nn.Linear(config.hidden_size, num_outputs)

        def forward(self, pooled_BD: Tensor) -> Tensor:
            outputs: Tensor = self.out_proj(self.dense(pooled_BD).tanh())
            return outputs

    class Network(Wav2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self, config: Wav2Vec2Config):
            super().__init__(config)
            self.wav2vec2 = Wav2Vec2Model(config)
            self.age, self.gender = Head(config, 1), Head(config, len(GENDERS))
            self.post_init()  # type: ignore[no-untyped-call]

        def forward(self, audio_BT: Tensor) -> tuple[Tensor, Tensor]:
            """Years, and logits of the genders [3], of one clip."""
            pooled_BD = self.wav2vec2(audio_BT).last_hidden_state.mean(1)
            return 100 * self.age(pooled_BD)[0, 0], self.gender(pooled_BD)[0]

    loaded: Any = Network.from_pretrained(place, output_loading_info=True)
    network, info = loaded
    refuse_missing(info)
    extractors: Any = AutoFeatureExtractor
    extract = extractors.from_pretrained(place)
    refuse_rate(extract)
    return extract, network.to(device).eval()
