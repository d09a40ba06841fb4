"""A listening session built from real speech, taken by a browser, and read back."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.listening.answers import Rating, opinion_scores, read_answers, table
from evaluation.listening.session import build_session
from evaluation.metrics.utterance_score import UtteranceScore
from samples.fabricate import cut, turns
from tests.evaluation.utterances import score_of
from tests.support.browser import CHROMIUM, open_page
from voxmill.core.errors import UserError

TEXT = "</script><script>window.hacked = true</script> <b>bold</b>"
Scores = dict[tuple[str, str], list[UtteranceScore]]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """Two systems with two utterances each: tenths of seconds of real speech at different levels, to be quick."""
    folder = tmp_path_factory.mktemp("speech")
    scores: Scores = {("texts", "secret-one"): [], ("texts", "secret-two"): []}
    pieces = [(start + 0.4, start + 0.5) for start, _, _ in turns("en-1", 5)]
    reference = cut("en-1", *pieces[4], folder / "reference.wav")
    for number, own in enumerate(scores.values()):
        for index in range(2):
            wav = cut("en-1", *pieces[2 * number + index], folder / f"{number}{index}.wav")
            samples, rate = soundfile.read(wav)
            soundfile.write(wav, samples * (0.2 if number else 1.0), rate)
            own.append(
                score_of(
                    f"u{index}",
                    wav=wav,
                    text=TEXT,
                    reference=None if index else reference,
                    description="Speak <i>calmly</i>." if index else None,
                )
            )
    scores[("texts", "secret-two")].append(score_of("u9", status="missing"))
    return scores


def test_a_session_is_blind_whole_and_the_same_again(scores: Scores, tmp_path: Path) -> None:
    made = build_session(scores, tmp_path / "a", seed=5)
    assert made.trials == 8 and made.skipped == {"S": 1, "I": 1}
    page, key = made.page.read_text(encoding="utf-8"), json.loads(made.key.read_text())
    assert "secret" not in page and "u0" not in json.dumps(json.loads(_data(page))["trials"])
    assert {trial["system"] for trial in key["trials"].values()} == {"secret-one", "secret-two"}
    assert build_session(scores, tmp_path / "b", seed=5).id == made.id
    assert (tmp_path / "b" / "listen.html").read_text() == page
    other = json.loads(build_session(scores, tmp_path / "c", seed=6).key.read_text())
    assert other["trials"] != key["trials"]
    # One loudness for all: the quieter system is no quieter here.
    import base64
    import io

    levels = []
    for clip in json.loads(_data(page))["clips"].values():
        samples, _ = soundfile.read(io.BytesIO(base64.b64decode(clip)))
        levels.append(20 * np.log10(np.sqrt(np.mean(np.square(samples)))))
    assert np.ptp(levels) < 8.0
    with pytest.raises(UserError, match="scale 'X' is unknown"):
        build_session(scores, tmp_path / "d", scales=["X"])
    with pytest.raises(UserError, match="nothing to rate"):
        build_session({("t", "s"): [score_of("a", status="silent")]}, tmp_path / "e")


def _data(page: str) -> str:
    return page.split('<script type="application/json" id="data">')[1].split("</script>")[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install -y chromium)")
def test_a_listener_goes_through_the_page_and_the_answers_come_back(scores: Scores, tmp_path: Path) -> None:
    made = build_session(scores, tmp_path / "session", seed=1)
    key = json.loads(made.key.read_text())["trials"]
    (tmp_path / "answers").mkdir()

    async def listen(listener: str) -> None:
        async with open_page(made.page.as_uri(), tmp_path / f"profile-{listener}") as page:
            assert await page.value("document.getElementById('begin').disabled")
            await page.value(
                f"(() => {{ const box = document.getElementById('listener'); box.value = '{listener}';"
                " box.dispatchEvent(new Event('input')); document.getElementById('begin').click(); })()"
            )
            for _ in range(made.trials):
                # Nothing can be rated before it was heard to its end.
                assert await page.value("document.getElementById('scores').disabled")
                assert await page.value("document.getElementById('next').disabled")
                if not await page.value("document.getElementById('reference-part').hidden"):
                    await page.value("document.getElementById('reference').play()")
                    await page.wait("document.getElementById('reference').ended")
                    assert await page.value("document.getElementById('scores').disabled")
                if not await page.value("document.getElementById('instruction-part').hidden"):
                    assert (
                        await page.value("document.getElementById('instruction').textContent") == "Speak <i>calmly</i>."
                    )
                await page.value("document.getElementById('clip').play()")
                await page.wait("!document.getElementById('scores').disabled")
                trial = await page.value("state.order[state.position].trial")
                score = 5 if key[trial]["system"] == "secret-one" else 2
                await page.value(f"document.querySelectorAll('#scores input')[{score - 1}].click()")
                await page.value("document.getElementById('next').click()")
            await page.wait("!document.getElementById('end').hidden")
            answers = await page.value("document.getElementById('answers').value")
            assert not await page.value("window.hacked === true") and not page.errors, page.errors
            (tmp_path / "answers" / f"{listener}.json").write_text(answers, encoding="utf-8")

    for listener in ("anna", "ben"):
        asyncio.run(listen(listener))
    orders = [
        [answer["trial"] for answer in json.loads((tmp_path / "answers" / f"{name}.json").read_text())["answers"]]
        for name in ("anna", "ben")
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(key) and orders[0] != orders[1]
    answers = read_answers(made.key, tmp_path / "answers")
    assert not answers.problems and len(answers.ratings) == 16
    opinions = {(mos.scale, mos.system): mos for mos in opinion_scores(answers.ratings)}
    assert len(opinions) == 6
    for (_, system), mos in opinions.items():
        assert mos.estimate.value == (5 if system == "secret-one" else 2) and mos.listeners == 2 and mos.alpha == 1.0
    shutil.rmtree(tmp_path / "answers")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install -y chromium)")
def test_whole_turns_are_played_to_their_end_after_a_reload_and_a_step_back(tmp_path: Path) -> None:
    """Turns of seconds, as in real sessions: no rating opens before the end, and a listener may come back."""
    long: Scores = {("texts", "one"): [], ("texts", "two"): []}
    whole = [turn for turn in turns("en-1", 8) if turn[1] - turn[0] > 2.0][:4]
    assert len(whole) == 4
    reference = cut("en-1", *whole[0][:2], tmp_path / "reference.wav")
    for number, own in enumerate(long.values()):
        for index in range(2):
            start, end, text = whole[2 * number + index]
            wav = cut("en-1", start, end, tmp_path / f"{number}{index}.wav")
            own.append(score_of(f"u{index}", wav=wav, text=text, reference=reference))
    made = build_session(long, tmp_path / "session", scales=["N", "S"])
    assert made.trials == 8

    async def listen() -> str:
        async with open_page(made.page.as_uri(), tmp_path / "profile") as page:

            async def begin() -> None:
                await page.value(
                    "(() => { const box = document.getElementById('listener'); box.value = 'anna';"
                    " box.dispatchEvent(new Event('input')); document.getElementById('begin').click(); })()"
                )

            async def listen_to(which: str) -> float:
                await page.wait(f"document.getElementById('{which}').duration > 2")
                length = float(await page.value(f"document.getElementById('{which}').duration"))
                await page.value(f"document.getElementById('{which}').play()")
                await page.wait(f"document.getElementById('{which}').currentTime > 0.5 * {length}")
                assert await page.value("document.getElementById('scores').disabled")
                await page.wait(f"document.getElementById('{which}').ended", seconds=2 * length + 10)
                return length

            await begin()
            for number in range(made.trials):
                if not await page.value("document.getElementById('reference-part').hidden"):
                    await listen_to("reference")
                assert await listen_to("clip") > 2
                await page.wait("!document.getElementById('scores').disabled")
                await page.value(f"document.querySelectorAll('#scores input')[{number % 5}].click()")
                if number == 2:
                    # Reloaded and begun again: the place and the answers are kept, and the way back stays open.
                    await page.call("Page.navigate", url=made.page.as_uri())
                    await page.wait("document.readyState === 'complete' && !document.getElementById('start').hidden")
                    await begin()
                    assert await page.value("state.position") == 2 and not await page.value(
                        "document.getElementById('next').disabled"
                    )
                    await page.value("document.getElementById('back').click()")
                    assert await page.value("document.querySelectorAll('#scores input')[1].checked")
                    await page.value("document.getElementById('next').click()")
                await page.value("document.getElementById('next').click()")
            await page.wait("!document.getElementById('end').hidden")
            assert not page.errors, page.errors
            return str(await page.value("document.getElementById('answers').value"))

    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "anna.json").write_text(asyncio.run(listen()), encoding="utf-8")
    given = json.loads((tmp_path / "answers" / "anna.json").read_text())["answers"]
    # Heard at its own speed: no answer came sooner than its recording lasts.
    assert all(answer["seconds"] > 2 and answer["plays"] == 1 for answer in given)
    answers = read_answers(made.key, tmp_path / "answers")
    assert not answers.problems and len(answers.ratings) == 8


def test_damaged_answers_are_named_and_skipped(scores: Scores, tmp_path: Path) -> None:
    made = build_session(scores, tmp_path / "session", scales=["N"])
    key = json.loads(made.key.read_text())
    trials = list(key["trials"])
    good = [{"trial": name, "score": 4} for name in trials]
    folder = tmp_path / "answers"
    folder.mkdir()

    def write(name: str, listener: str, answers: object, session: str = made.id) -> None:
        plain = {"format": "voxmill-listening-1", "session": session, "listener": listener, "answers": answers}
        (folder / name).write_text(json.dumps(plain))

    write("1-anna.json", "anna", [{"trial": name, "score": 1} for name in trials])
    write("2-anna.json", "anna", good)
    write("3-ben.json", "ben", [*good[1:], {"trial": "t9999", "score": 3}, {"trial": trials[0], "score": 6}])
    write("4-other.json", "carl", good, session="another")
    (folder / "5-broken.json").write_text("{")
    (folder / "6-list.json").write_text("[]")
    answers = read_answers(made.key, folder)
    assert {rating.score for rating in answers.ratings} == {4} and len(answers.ratings) == 2 * len(trials) - 1
    problems = "\n".join(answers.problems)
    for part in (
        "2-anna.json: anna has answered before",
        "no recording 't9999'",
        "score 6 is not 1 to 5",
        "3-ben.json: 1 of 4",
        "4-other.json: answers of another session",
        "5-broken.json",
        "6-list.json",
    ):
        assert part in problems
    assert "N-MOS" in table(opinion_scores(answers.ratings))
    with pytest.raises(UserError, match="no usable answers"):
        read_answers(made.key, tmp_path / "session")
    with pytest.raises(UserError, match="not the key"):
        read_answers(tmp_path / "none.json", folder)


def test_intervals_of_mos_hold_the_truth_with_few_listeners_and_items() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for trial in range(60):
        listeners, items = generator.normal(0, 0.5, 12), generator.normal(0, 0.5, 20)
        scores = np.clip(np.round(3.5 + listeners[:, None] + items[None, :] + generator.normal(0, 0.7, (12, 20))), 1, 5)
        ratings = [
            Rating(f"l{row}", "N", "s", f"i{column}", int(scores[row, column]))
            for row in range(12)
            for column in range(20)
            if generator.random() > 0.2
        ]
        (mos,) = opinion_scores(ratings, seed=trial)
        held += mos.estimate.low <= 3.5 <= mos.estimate.high
    assert held >= 50
