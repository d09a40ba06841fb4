"""Text to ids as VoxCPM2 was trained: BPE of `tokenizer.json`, then tokens of several hanzi split into single ones.

The ids are those of transformers 5, fixed: text before and after a special token starts with one "▁", and a space at
its start is that "▁" rather than a second one, where transformers 4 gives both. The `tokenizers` library is used
directly, whatever transformers is installed. Texts without such spaces have the same ids under both.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from model.run_checkpoint import base_of
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_copy

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"
SPACE = "▁"
COUNTED_TOGETHER = 1024
"""Texts that `count` hands over at once: their tokens are in memory together."""
_HANZI = re.compile("[\u4e00-\u9fff]")
_NO_TEXT = re.compile(r"<(?!0x[0-9A-F]{2}>).+>")
"""Markers; `<0x62>` is a byte of a text."""


class TextTokenizer:
    """Ids of a text without BOS and EOS."""

    def __init__(self, backend: "Tokenizer") -> None:
        """`backend`: of a released `tokenizer.json`; its treatment of spaces is replaced."""
        from tokenizers.normalizers import Sequence
        from tokenizers.pre_tokenizers import Metaspace

        backend.normalizer = Sequence([])
        backend.pre_tokenizer = Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
        self._backend = backend
        self._ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        self._unknown = self._ids.get("<unk>", 0)
        words = {token for token in self._ids if len(token) > 1 and all("\u4e00" <= char <= "\u9fff" for char in token)}
        self._split = {
            number: tuple(self._ids.get(char, self._unknown) for char in token.replace(SPACE, ""))
            for token, number in self._ids.items()
            if token.replace(SPACE, "") in words
        }
        """Ids of the characters of each token of several hanzi."""
        self._more: NDArray[np.int64] = np.zeros(self.size, dtype=np.int64)
        """By id: tokens that `encode` makes of it, minus one."""
        for number, parts in self._split.items():
            self._more[number] = len(parts) - 1

    @classmethod
    def from_folder(cls, path: str | Path) -> Self:
        """Reads `path/tokenizer.json`; the folder may be a URI.

        Raises:
            UserError: there is no such file, or it is not a tokenizer's.
        """
        from tokenizers import Tokenizer

        file = local_copy(base_of(path)) / FILE
        if not file.is_file():
            raise UserError(f"{file}: no such file; name a checkpoint folder with its tokenizer")
        try:
            backend = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more precise
            raise UserError(f"{file}: not a tokenizer ({error}); copy it again from the released model") from None
        tokenizer = cls(backend)
        if not any(token.startswith(SPACE) for token in tokenizer._ids):
            raise UserError(
                f"{file}: has no token that begins a word with {SPACE!r}, as those of MiniCPM-4 and Llama do"
            )
        return tokenizer

    @property
    def size(self) -> int:
        """The largest id plus 1: rows of an embedding for these ids."""
        return max(self._ids.values(), default=-1) + 1

    def texts_of(self, ids: Iterable[int]) -> list[str]:
        """Tokens of those of the ids that stand for text, and not for a marker or nothing."""
        tokens = [self._backend.id_to_token(number) for number in ids]
        return [token for token in tokens if token is not None and not _NO_TEXT.fullmatch(token)]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; a hanzi that has no token of its own is `<unk>`."""
        return self._single(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, which the library computes in parallel."""
        return [self._single(e.ids) for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _single(self, ids: list[int]) -> list[int]:
        """With tokens of several hanzi split."""
        if self._split.keys().isdisjoint(ids):
            return ids
        return [part for number in ids for part in self._split.get(number, (number,))]

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """`len(encode(text))` of each text, on all cores of this machine."""
        counts: NDArray[np.int64] = np.zeros(len(texts), dtype=np.int64)
        for start in range(0, len(texts), COUNTED_TOGETHER):
            some = list(texts[start : start + COUNTED_TOGETHER])
            for number, encoding in enumerate(self._backend.encode_batch_fast(some, add_special_tokens=False)):
                more = int(self._more[encoding.ids].sum()) if _HANZI.search(some[number]) else 0
                counts[start + number] = len(encoding) + more
        return counts
