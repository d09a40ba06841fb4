"""What stands between pieces of a text in each script, how much speech a character is, and both scripts of Chinese."""

import pytest

from voxmill.data.scripts import ChineseScript, in_script, joined, letters_a_character, one_line, script_blind


@pytest.mark.parametrize(
    "pieces, at_pauses, anywhere",
    [
        (["One two.", "Three."], "One two. Three.", "One two. Three."),
        (["今天天气很好。", "我们走吧"], "今天天气很好。我们走吧", "今天天气很好。我们走吧"),
        # Cantonese with Whisper's own commas.
        (["你食咗飯未呀,", "我食咗喇"], "你食咗飯未呀,我食咗喇", "你食咗飯未呀,我食咗喇"),
        (["東京へ", "いきます。", "「ハイ」"], "東京へいきます。「ハイ」", "東京へいきます。「ハイ」"),
        (["안녕하세요.", "반갑습니다."], "안녕하세요. 반갑습니다.", "안녕하세요. 반갑습니다."),
        # Thai, Lao, Khmer, Burmese: a space ends a sentence or a phrase, and no word.
        (["สวัสดีครับ", "วันนี้"], "สวัสดีครับ วันนี้", "สวัสดีครับวันนี้"),
        (["ສະບາຍດີ", "ມື້ນີ້"], "ສະບາຍດີ ມື້ນີ້", "ສະບາຍດີມື້ນີ້"),
        (["សួស្តី", "ថ្ងៃនេះ"], "សួស្តី ថ្ងៃនេះ", "សួស្តីថ្ងៃនេះ"),
        (["မင်္ဂလာပါ", "ဒီနေ့"], "မင်္ဂလာပါ ဒီနေ့", "မင်္ဂလာပါဒီနေ့"),
        (["我用 GPT", "写了。"], "我用 GPT 写了。", "我用 GPT 写了。"),
        (["", " a ", "", "b"], "a b", "a b"),
        (["…", "好"], "… 好", "… 好"),
    ],
)
def test_pieces_are_joined_as_their_scripts_are_written(pieces: list[str], at_pauses: str, anywhere: str) -> None:
    assert joined(pieces) == at_pauses
    assert joined(pieces, within_phrases=True) == anywhere


def test_lines_become_one_and_spaces_within_them_stay() -> None:
    assert one_line("今天 天气\n很好 \r\n a\tb\n") == "今天 天气很好 a b"


@pytest.mark.parametrize(
    "text, letters",
    [
        ("", 1.0),
        ("The end", 1.0),
        ("Конец, τέλος", 1.0),
        ("今天天气很好", 3.0),
        ("きょう", 2.0),
        ("東京へ", 8 / 3),
        ("안녕하세요", 2.5),
        ("ሰላም", 2.0),
        ("مرحبا", 1.5),
        ("สวัสดี", 1.0),
        ("今天 OK", 2.0),
    ],
)
def test_a_character_stands_for_as_many_letters_as_its_script_has_it(text: str, letters: float) -> None:
    assert letters_a_character(text) == pytest.approx(letters)


@pytest.mark.parametrize(
    "text, script, wanted",
    [
        ("汉语头发发现干净", "traditional", "漢語頭髮發現乾淨"),
        ("漢語頭髮發現乾淨", "simplified", "汉语头发发现干净"),
        ("皇后在公里之外。OK 😀", "traditional", "皇后在公里之外。OK 😀"),
        ("", "simplified", ""),
    ],
)
def test_chinese_is_written_in_one_script_by_its_words(text: str, script: ChineseScript, wanted: str) -> None:
    assert in_script(text, script) == wanted


def test_both_scripts_of_chinese_are_compared_as_one_and_of_no_other_language() -> None:
    assert script_blind("頭髮ab", "zh-yue") == script_blind("头发ab", "zh") == ["头", "发", "a", "b"]
    assert script_blind("頭髮", "ja") == ["頭", "髮"]
