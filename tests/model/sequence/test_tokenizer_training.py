"""A tokenizer that is learnt from texts is in the released form."""

import json
from pathlib import Path

import pytest

from model.sequence.layouts import AUDIO_START, REFERENCE_END
from model.sequence.text_tokenizer import TextTokenizer
from model.sequence.tokenizer_training import BYTES, RESERVED, train_tokenizer
from samples.turns import sample_texts
from voxmill.core.errors import UserError

SIZE = 700


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([*sample_texts(), "今天天气很好 今天天气很好", "(A calm woman.)Good day"], folder, size=SIZE)
    return folder


def decoded(tokenizer: TextTokenizer, ids: list[int]) -> str:
    return tokenizer._backend.decode(ids)


def test_markers_and_bytes_have_the_first_ids(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    assert by_id[: len(RESERVED) + 256] == [*RESERVED, *BYTES]
    assert by_id[AUDIO_START] == "<|audio_start|>" and by_id[REFERENCE_END] == "<|audio_prompt_end|>"
    assert len(by_id) <= SIZE and len(by_id) == TextTokenizer.from_folder(folder).size


@pytest.mark.parametrize(
    "text", ["the number you have dialled", "Größe 你好, 🙂 ß", "<0x41> and <|audio_start", "  two  spaces", "दुनिया"]
)
def test_every_text_comes_back_and_has_no_unknown_token(folder: Path, text: str) -> None:
    tokenizer = TextTokenizer.from_folder(folder)
    ids = tokenizer.encode(text)
    assert min(ids) >= len(RESERVED)
    assert decoded(tokenizer, ids).strip() == text.strip()


def test_hanzi_that_were_merged_are_read_one_by_one(folder: Path) -> None:
    tokenizer = TextTokenizer.from_folder(folder)
    assert len(tokenizer.encode("今天天气")) in (4, 5)


def test_the_same_texts_give_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    train_tokenizer([*sample_texts(), "今天天气很好 今天天气很好", "(A calm woman.)Good day"], tmp_path, size=SIZE)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_no_text_and_no_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a vocabulary of 300 is too small; 425 or more"):
        train_tokenizer(["text"], tmp_path, size=300)
    with pytest.raises(UserError, match="no text to learn"):
        train_tokenizer([], tmp_path, size=SIZE)


def test_a_tokenizer_of_other_spaces_or_with_text_as_markers_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0, "Ġa": 1}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no token that begins a word"):
        TextTokenizer.from_folder(tmp_path)
    words = {f"▁{number}": number for number in range(101)} | {"<0x62>": 101, "<|audio_end|>": 102}
    Tokenizer(models.BPE(words, [])).save(str(tmp_path / "tokenizer.json"))
    assert TextTokenizer.from_folder(tmp_path).texts_of(range(101, 105)) == ["<0x62>"]
