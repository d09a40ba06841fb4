"""Sequences of every mode, from building blocks."""

import pytest
import torch
from torch import Tensor

from model.sequence.layouts import Layout, arrange, compose_text
from voxmill.core.errors import UserError

SHAPE = (2, 3)
TEXT = [300, 301, 302]


def patches(count: int, start: float = 0.0) -> Tensor:
    """Patches that tell their number: all values of patch i are start + i."""
    return (start + torch.arange(count, dtype=torch.float32))[:, None, None].expand(count, *SHAPE)


def build(*, reference: int = 0, target: int = 0, closed: bool, text: list[int] | None = None) -> Layout:
    return arrange(
        TEXT if text is None else text,
        reference_RPD=patches(reference, 100) if reference else None,
        target_GPD=patches(target) if target else None,
        closed=closed,
        patch_shape=SHAPE,
        max_length=16,
    )


TRAINING = [  # reference, target -> tokens
    (0, 3, [*TEXT, 101, 0, 0, 0, 102]),
    (2, 3, [103, 0, 0, 104, *TEXT, 101, 0, 0, 0, 102]),
    (1, 1, [103, 0, 104, *TEXT, 101, 0, 102]),
]
INFERENCE = [  # reference, prompt -> tokens: zero-shot or design, reference, continuation, reference + continuation
    (0, 0, [*TEXT, 101]),
    (2, 0, [103, 0, 0, 104, *TEXT, 101]),
    (0, 2, [*TEXT, 101, 0, 0]),
    (2, 2, [103, 0, 0, 104, *TEXT, 101, 0, 0]),
]


@pytest.mark.parametrize(
    ("closed", "reference", "target", "tokens"),
    [(True, *case) for case in TRAINING] + [(False, *case) for case in INFERENCE],
)
def test_order_of_the_blocks(closed: bool, reference: int, target: int, tokens: list[int]) -> None:
    layout = build(reference=reference, target=target, closed=closed)
    assert layout.tokens_T.tolist() == tokens and len(layout) == len(tokens)
    # Audio stands exactly where the token is 0: the reference first, then the target or prompt.
    assert layout.is_audio_T.tolist() == [token == 0 for token in tokens]
    values = layout.audio_APD[:, 0, 0].tolist()
    assert values == [100 + i for i in range(reference)] + list(range(target))
    assert layout.target_GPD[:, 0, 0].tolist() == list(range(target))
    assert layout.num_target == target and layout.closed == closed


def test_a_sequence_that_does_not_fit_is_refused_with_its_length() -> None:
    build(target=11, closed=True)  # 3 + 1 + 11 + 1 = 16 just fits
    with pytest.raises(
        UserError, match=r"^17 positions \(3 text tokens, 0 reference and 12 target patches\).*takes 16"
    ):
        build(target=12, closed=True)
    with pytest.raises(
        UserError, match=r"^21 positions \(20 text tokens, 0 reference and 0 target patches\).*takes 16"
    ):
        build(closed=False, text=[300] * 20)


def test_what_cannot_be_arranged() -> None:
    with pytest.raises(UserError, match="no tokens"):
        build(target=2, closed=True, text=[])
    with pytest.raises(UserError, match="no audio"):
        build(closed=True)
    with pytest.raises(ValueError, match=r"reference patches are \(2, 3, 2\) instead of \[\*, 2, 3\]"):
        arrange(
            TEXT,
            reference_RPD=torch.zeros(2, 3, 2),
            target_GPD=patches(1),
            closed=True,
            patch_shape=SHAPE,
            max_length=16,
        )


def test_half_precision_target_beside_a_full_precision_reference() -> None:
    layout = arrange(
        TEXT,
        reference_RPD=patches(1, 100),
        target_GPD=patches(2).bfloat16(),
        closed=True,
        patch_shape=SHAPE,
        max_length=16,
    )
    assert layout.audio_APD.dtype == torch.float32 and layout.audio_APD[:, 0, 0].tolist() == [100, 0, 1]


@pytest.mark.parametrize(
    ("text", "blocks", "expected"),
    [
        ("Hello.", {}, "Hello."),
        (" two\nlines\t and  more ", {}, " two lines and more "),
        ("Hello.", {"description": "a warm voice"}, "(a warm voice)Hello."),
        ("Hello.", {"description": "a (very) warm （deep）\nvoice "}, "(a very warm deep voice)Hello."),
        ("Hello.", {"description": "()"}, "Hello."),
        ("(laughs) Hello.", {"description": "sad"}, "(sad)(laughs) Hello."),
        ("Hello.", {"prompt_text": "I said:\n"}, "I said: Hello."),
        ("你好", {"description": "低沉"}, "(低沉)你好"),
    ],
)
def test_text_of_a_sequence(text: str, blocks: dict[str, str], expected: str) -> None:
    assert compose_text(text, **blocks) == expected


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
def test_empty_text(text: str) -> None:
    with pytest.raises(UserError, match="text is empty"):
        compose_text(text, description="sad")


def test_a_description_does_not_go_with_a_prompt() -> None:
    with pytest.raises(UserError, match="description does not work with a prompt"):
        compose_text("Hello.", description="sad", prompt_text="I said: ")
