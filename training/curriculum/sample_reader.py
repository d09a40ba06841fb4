"""From planned samples to training sequences: their texts tokenized, their latents read, many at once.

Latents of one shard that lie side by side are one read, and shards are read by several threads.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from torch import Tensor

from model.sequence.layouts import Layout, arrange, compose_text
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import ClipTexts, Corpus
from training.curriculum.latent_reading import Latents, by_shard, read_shard
from training.curriculum.sample_plan import NOT_PACKED, PlannedSample
from training.curriculum.shard_cache import ShardCache
from voxmill.data.transcript import plain_text

Read = Layout | ValueError | OSError


class SampleReader:
    """Reads samples of a corpus.

    Args:
        max_positions: of a sample. threads: which read shards. cache: through which those in object storage are read.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: TextTokenizer,
        *,
        max_positions: int,
        threads: int = 1,
        cache: ShardCache | None = None,
    ) -> None:
        self.corpus, self.tokenizer, self.max_positions = corpus, tokenizer, max_positions
        self._cache = cache
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read") if threads > 1 else None

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def tokens(self, samples: Sequence[PlannedSample], written: Sequence[ClipTexts] | None = None) -> list[list[int]]:
        """Token ids of the samples' texts, each with its description.

        Args:
            written: of their clips, where it is read already.
        """
        texts = []
        for sample, clip in zip(samples, written or self.corpus.read_texts([s.clip for s in samples]), strict=True):
            description = None if sample.description is None else clip.descriptions[sample.description]
            texts.append(compose_text(plain_text(clip.text), description=description))
        return self.tokenizer.encode_all(texts)

    def latents(self, clips: Sequence[int]) -> dict[int, Latents]:
        """Latents of the clips, or why they cannot be read."""
        shards = by_shard(self.corpus.latent_places(sorted(set(clips))))
        load = partial(read_shard, patch_size=self.corpus.patch_size, cache=self._cache)
        found: dict[int, Latents] = {}
        for some in map(load, shards) if self._pool is None else self._pool.map(load, shards):
            found |= some
        return found

    def layouts(self, samples: Sequence[PlannedSample]) -> list[Read]:
        """The training sequences of the samples, or why one cannot be read."""
        latents = self.latents([clip for sample in samples for clip in sample.clips])
        found: list[Read] = []
        for sample, tokens in zip(samples, self.tokens(samples), strict=True):
            target, reference = latents[sample.clip], None
            if sample.reference is not None:
                reference = latents[sample.reference]
            if not isinstance(target, Tensor):
                found.append(target)
            elif reference is not None and not isinstance(reference, Tensor):
                found.append(reference)
            else:
                found.append(self._arranged(sample, tokens, target, reference))
        return found

    def layout(self, sample: PlannedSample) -> Layout:
        """The training sequence of one sample.

        Raises:
            ValueError, OSError: a shard does not match the index, or cannot be read.
        """
        (found,) = self.layouts([sample])
        if not isinstance(found, Layout):
            raise found
        return found

    def _arranged(
        self, sample: PlannedSample, tokens: list[int], target_GPD: Tensor, reference_RPD: Tensor | None
    ) -> Read:
        arranged = arrange(
            tokens,
            reference_RPD=None if reference_RPD is None else reference_RPD.float(),
            target_GPD=target_GPD.float(),
            closed=True,
            patch_shape=(target_GPD.shape[1], target_GPD.shape[2]),
            max_length=self.max_positions,
        )
        if len(arranged) - NOT_PACKED != sample.length:
            return ValueError(f"{len(arranged) - NOT_PACKED} positions, and {sample.length} by the index")
        return arranged
