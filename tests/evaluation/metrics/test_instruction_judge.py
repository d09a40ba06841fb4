"""The judge against a real server that answers well, badly or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.metrics.instruction_judge import InstructionJudge, InstructionVerdict, JudgeConfig, parse
from evaluation.results.comparison import counts_of, scores_of
from tests.evaluation.utterances import score_of
from tests.support.chat_server import Handler, Server, chat_server
from voxmill.llm.chat_endpoint import EndpointConfig

YES, NO = '{"consistent": true, "reason": "calm"}', '{"consistent": false, "reason": "loud"}'


def config(server: Server, **options: Any) -> JudgeConfig:
    endpoint = EndpointConfig(
        url=server.url, model="ear", retries=0, requests_per_minute=6e6, timeout_seconds=5.0, give_up_after=3
    )
    return JudgeConfig(endpoint=endpoint, workers=1, **options)


def cases(folder: Path, count: int) -> list[tuple[str, Path | None]]:
    listed: list[tuple[str, Path | None]] = []
    for number in range(count):
        path = folder / f"{number}.wav"
        path.write_bytes(b"RIFF" + bytes([number]))
        listed.append((f"Speak calmly {{number {number}}}.", path))
    return listed


def test_verdicts_are_kept_and_read_again_without_a_request(tmp_path: Path) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.reply(YES if number % 2 == 0 else NO)

    with chat_server(answer) as server:
        asked = InstructionJudge(config(server), tmp_path / "replies")([*cases(tmp_path, 4), ("Loud.", None)])
        content = server.seen[0]["body"]["messages"][0]["content"]
        assert "Speak calmly {number 0}." in content[0]["text"] and content[1]["input_audio"]["format"] == "wav"
        assert len(server.seen) == 4
        again = InstructionJudge(config(server), tmp_path / "replies")([*cases(tmp_path, 4), ("Loud.", None)])
        assert again == asked and len(server.seen) == 4
        settings = config(server, replay=True)
    # The server is gone now; other audio than what was judged has no verdict.
    replayed = InstructionJudge(settings, tmp_path / "replies")(cases(tmp_path, 5))
    assert replayed[:4] == asked[:4] and replayed[4] == InstructionVerdict(None, "not_asked")
    assert [v.followed for v in asked] == [True, False, True, False, None] and asked[4].reason == "no_audio"


def test_gemini_is_asked_in_its_own_protocol_and_its_replies_are_read_again(tmp_path: Path) -> None:
    with chat_server(lambda handler, number, body: handler.generated(YES if number % 2 == 0 else NO)) as server:
        asked = InstructionJudge(config(server, protocol="gemini"), tmp_path / "replies")(cases(tmp_path, 3))
        assert [verdict.followed for verdict in asked] == [True, False, True]
        seen = server.seen[0]
        text, audio = seen["body"]["contents"][0]["parts"]
        assert seen["path"].endswith("/models/ear:generateContent") and "Speak calmly {number 0}." in text["text"]
        assert audio["inlineData"]["mime_type"] == "audio/wav"
        schema = seen["body"]["generationConfig"]["responseSchema"]
        assert schema["type"] == "OBJECT" and schema["properties"]["consistent"] == {"type": "BOOLEAN"}
        assert schema["required"] == schema["property_ordering"] == ["consistent", "reason"]
        settings = config(server, protocol="gemini", replay=True)
        other = config(server, replay=True)
    # The server is gone; replies of another protocol's model are not its own.
    assert InstructionJudge(settings, tmp_path / "replies")(cases(tmp_path, 3)) == asked
    assert {v.reason for v in InstructionJudge(other, tmp_path / "replies")(cases(tmp_path, 3))} == {"not_asked"}
    kept = [json.loads(path.read_text()) for path in (tmp_path / "replies").rglob("*.json")]
    assert sorted(reply["text"] for reply in kept) == sorted([YES, NO, YES])


def test_garbage_is_asked_again_kept_and_counted(tmp_path: Path) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        first = body["messages"][0]["content"][0]["text"]
        handler.reply("Sure! true" if "number 1" in first or body["seed"] == 0 else YES)

    with chat_server(answer) as server:
        judge = InstructionJudge(config(server, attempts=2), tmp_path / "replies")
        assert [v.followed for v in judge(cases(tmp_path, 2))] == [True, None]
        assert len(server.seen) == 4 and len(list((tmp_path / "replies").rglob("*.json"))) == 4
        assert judge(cases(tmp_path, 2))[1].reason == "garbage" and len(server.seen) == 4


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "true",
        "[]",
        "{}",
        '{"consistent": "true"}',
        '{"consistent": 1}',
        f"```json\n{YES}\n```",
        YES + YES,
        "[" * 100_000,
    ],
)
def test_only_one_strict_object_is_a_verdict(reply: str) -> None:
    assert parse(reply) == InstructionVerdict(None, "garbage")


def test_a_judge_that_is_down_loses_nothing(tmp_path: Path) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.reply(YES) if number < 2 else handler.send("gone", 503)

    with chat_server(answer) as server:
        judge = InstructionJudge(config(server, attempts=1), tmp_path / "replies")
        verdicts = judge(cases(tmp_path, 8))
        assert [v.followed for v in verdicts[:2]] == [True, True] and "3 requests in a row" in judge.problem
        assert verdicts[2].reason == "http_503" and {v.reason for v in verdicts[4:]} == {"judge_down"}
        assert len(server.seen) == 5


def test_nulls_bound_the_score_from_both_sides() -> None:
    verdicts = [InstructionVerdict(followed, "garbage") for followed in (True, True, False, None, None)]
    scores = [
        score_of(str(number), group="en-APS", instruction=verdict, wants_errors=False)
        for number, verdict in enumerate(verdicts)
    ]
    estimates = {score.metric: score.estimate for score in scores_of("b", "s", scores)}
    assert estimates["followed"].value == pytest.approx(2 / 3) and estimates["followed"].n == 3
    assert (estimates["followed_nulls_false"].value, estimates["followed_nulls_true"].value) == (0.4, 0.8)
    assert counts_of(scores) == {"ok": 5, "no verdict: garbage": 2}
