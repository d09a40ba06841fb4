"""A text tokenizer of one's own: BPE over characters with bytes for the rest, in the released form.

Ids up to that of the last special token are no text (`layouts`); the bytes and what is learnt lie above them.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from model.config import LAST_SPECIAL_TOKEN
from model.sequence.text_tokenizer import FILE, SPACE
from voxmill.core.errors import UserError

_NAMED = {0: "<unk>", 1: "<s>", 2: "</s>", 101: "<|audio_start|>", 102: "<|audio_end|>"}
_NAMED |= {103: "<|audio_prompt_start|>", 104: "<|audio_prompt_end|>"}
RESERVED = [_NAMED.get(number, f"<|reserved_{number}|>") for number in range(LAST_SPECIAL_TOKEN + 1)]
"""Names of the ids that are no text."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""Of characters that have no id of their own, as their UTF-8."""
SMALLEST = len(RESERVED) + len(BYTES) + 64


def train_tokenizer(texts: Iterable[str], folder: Path, *, size: int) -> int:
    """Writes `folder/tokenizer.json`, which the same texts in the same order give again, and returns its size.

    Args:
        size: ids at most; few texts give fewer.

    Raises:
        UserError: `size` is below `SMALLEST`, or there is no text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    if size < SMALLEST:
        raise UserError(f"a vocabulary of {size} is too small; {SMALLEST} or more are needed")
    learner = Tokenizer(models.BPE(unk_token=RESERVED[0]))
    metaspace = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    learner.pre_tokenizer = metaspace
    reserved = [*RESERVED, *BYTES]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=reserved, limit_alphabet=(size - len(reserved)) // 2, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learnt = learner.get_vocab_size()
    if learnt == len(reserved):
        raise UserError("no text to learn a tokenizer from; name a dataset with transcripts")
    # The bytes were special only to get their ids: no text may name them.
    model = models.BPE(
        vocab=learner.get_vocab(with_added_tokens=True),
        merges=[(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]],
        unk_token=RESERVED[0],
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = metaspace
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(SPACE, "always")])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in RESERVED])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / FILE))
    return learnt
