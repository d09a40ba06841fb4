import torch

from tests.support.oracle import error, read_oracle


def test_oracle_is_complete() -> None:
    # Every tensor that oracle.json describes is there, in the shape that it states.
    stated = read_oracle().json["tensors"]
    assert stated and set(stated) == set(read_oracle().tensors)
    for name, facts in stated.items():
        assert list(read_oracle()[name].shape) == facts["shape"], name


def test_error_is_relative_to_the_largest_value() -> None:
    expected = torch.tensor([0.0, 4.0])
    assert error(torch.tensor([1.0, 4.0]), expected) == 0.25
    assert error(expected, expected) == 0.0
    assert error(torch.tensor([float("nan"), 4.0]), expected) == float("inf")
