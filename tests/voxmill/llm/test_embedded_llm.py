"""The embedded model really runs where xllamacpp is installed; its absence is reported in one line."""

import sys

import pytest

from annotation.descriptions.config import DescriptionsConfig
from annotation.descriptions.described import DescribedClip
from annotation.descriptions.describer import Describer
from annotation.descriptions.questions import PARAPHRASE, PROMPTS
from annotation.descriptions.verification import Evidence
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError
from voxmill.data.records import Fact
from voxmill.llm.embedded_llm import EmbeddedLlm, EmbeddedLlmConfig
from voxmill.llm.prompt_files import read_prompt

PROMPT = read_prompt(PROMPTS, PARAPHRASE)


def test_without_the_library_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UserError, match="pip install xllamacpp"):
        EmbeddedLlm(EmbeddedLlmConfig(), PROMPT)


def test_a_file_that_is_not_there_is_named() -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    with pytest.raises(UserError, match="nothing.gguf: no such file"):
        EmbeddedLlm(EmbeddedLlmConfig(model="nothing.gguf"), PROMPT)


def test_it_answers_the_same_twice_and_nothing_false_is_kept() -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    try:
        weights = asset_path("smollm2-135m")
    except UserError as error:
        pytest.skip(str(error))
    llm = EmbeddedLlm(EmbeddedLlmConfig(), PROMPT, weights)
    sentence = "Speaks at a very high pitch, slowly and with lively intonation."
    assert llm.rewrite(sentence, 0) == llm.rewrite(sentence, 0)
    assert "\n" not in llm.rewrite(sentence, 1)
    facts = [
        Fact("pitch", "style", "very high", value=300.0, unit="Hz", z=2.2),
        Fact("rate", "style", "slow", value=4.8, unit="syllables/s", z=-1.1),
    ]
    describer = Describer(DescriptionsConfig(writer="embedded"), rewriter=llm)
    for i in range(3):
        for description in describer(DescribedClip(f"c{i}", "en", Evidence(facts))).kept:
            assert description.recall == 1.0 and all(verdict.verdict == "pass" for verdict in description.verdicts)
