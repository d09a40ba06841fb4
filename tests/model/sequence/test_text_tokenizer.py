"""The text tokenizer against the oracle's cases, the library of the released code, and the released model's ids."""

import json
import os
import random
from pathlib import Path

import pytest

from model.sequence.text_tokenizer import TextTokenizer
from tests.support.oracle import read_oracle
from voxmill.core.errors import UserError

GOLDEN = {
    "Hello, world!": [21045, 59342, 2809, 73],
    "你好，世界！": [59320, 59496, 59495, 65, 59792, 59868, 67],
    "2024年6月27日，温度25.5°C。": [
        59320,
        59349,
        59344,
        59349,
        59370,
        59406,
        59381,
        59436,
        59349,
        59387,
        59420,
        65,
        60020,
        59557,
        59349,
        59367,
        72,
        59367,
        60445,
        59357,
        66,
    ],
    "こんにちは": [59320, 62190, 62524, 61377, 63251, 61579],
}


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_folder(read_oracle().checkpoint)


def test_oracle_cases(tokenizer: TextTokenizer) -> None:
    cases = read_oracle().json["tokenize"]
    assert len(cases) >= 7
    for text, ids, _ in cases:
        assert tokenizer.encode(text) == ids, text


def test_equals_the_library_of_the_released_code(tokenizer: TextTokenizer) -> None:
    import transformers

    assert int(transformers.__version__.split(".")[0]) == 5
    reference = transformers.LlamaTokenizerFast.from_pretrained(read_oracle().checkpoint)
    vocabulary = reference.get_vocab()
    choose = random.Random(0)
    pieces = [" ", "  ", "hello", "test", "你好世界", "一个", "é", "，", "😀", "<|background|>", "</s>", "x"]
    for _ in range(200):
        text = "".join(choose.choices(pieces, k=choose.randint(0, 6)))
        expected = []
        for token in reference.tokenize(text):
            word = token.replace("▁", "")
            hanzi = len(word) > 1 and word in vocabulary and all("\u4e00" <= char <= "\u9fff" for char in word)
            expected += reference.convert_tokens_to_ids(list(word) if hanzi else [token])
        assert tokenizer.encode(text) == expected, text


def test_counts_are_lengths(tokenizer: TextTokenizer) -> None:
    choose = random.Random(1)
    pieces = [" ", "hello", "test", "你好世界", "一个", "é", "，", "😀", "<|background|>", "</s>", "▁", "(a voice)"]
    texts = ["".join(choose.choices(pieces, k=choose.randint(0, 9))) for _ in range(3000)]
    assert tokenizer.count(texts).tolist() == [len(tokenizer.encode(text)) for text in texts]
    assert tokenizer.count([]).tolist() == []


def test_hanzi_without_a_token_is_unknown(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    values = json.loads((read_oracle().checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    row = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    values["added_tokens"].append(row | {"id": tokenizer.size, "content": "嬲囍"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    changed = TextTokenizer.from_folder(tmp_path)
    assert changed.encode("嬲囍") == 2 * [values["model"]["vocab"]["<unk>"]]
    assert max(changed.encode("hello嬲囍test")) < changed.size


def test_size_is_what_an_embedding_needs(tokenizer: TextTokenizer) -> None:
    assert max(max(ids) for _, ids, _ in read_oracle().json["tokenize"]) < tokenizer.size
    assert tokenizer.size <= read_oracle().config.lm_config.vocab_size


def test_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tokenizer.json: no such file"):
        TextTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}', encoding="utf-8")
    with pytest.raises(UserError, match="tokenizer.json: not a tokenizer"):
        TextTokenizer.from_folder(tmp_path)


RELEASED = os.environ.get("VOXMILL_RELEASED_TOKENIZER")


@pytest.mark.skipif(not RELEASED, reason="VOXMILL_RELEASED_TOKENIZER names no folder with the released tokenizer.json")
@pytest.mark.parametrize("text", GOLDEN)
def test_golden_ids(text: str) -> None:
    assert TextTokenizer.from_folder(str(RELEASED)).encode(text) == GOLDEN[text]
