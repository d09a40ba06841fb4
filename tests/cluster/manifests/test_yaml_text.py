"""YAML for people: what is read back is what was written, with comments where they belong."""

import pytest
import yaml

from cluster.manifests.yaml_text import WIDTH, Commented, Tree, yaml_text

TREES: list[dict[str, Tree]] = [
    {"text": "yes", "number": "0", "version": "1.10", "empty": "", "none": None, "flag": True, "colon": "a: b # c"},
    {"deep": {"a": {"b": {"c": [1, {"d": [{"e": "f"}, []]}, {}]}}}},
    {"long": "word " * 60 + "end", "list": ["short", "word " * 60 + "end"], "many": [f"number {n}" for n in range(40)]},
    {"lines": "one\ntwo\n", "last": "one\n  two"},
    {"items": [{"name": "x" * 80, "env": [{"name": "A", "value": "1"}]}, {"one": {"two": {"three": 3}}}]},
]


@pytest.mark.parametrize("tree", TREES, ids=[next(iter(tree)) for tree in TREES])
def test_what_is_read_back_is_what_was_written(tree: dict[str, Tree]) -> None:
    text = yaml_text(tree, "A header.\n\nOf three lines.")
    assert yaml.safe_load(text) == tree
    assert text.startswith("# A header.\n#\n# Of three lines.\n") and text.endswith("\n")
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_a_comment_stands_above_its_key() -> None:
    tree: dict[str, Tree] = {"a": {Commented("b", "Why it is so. " * 10): 1, "c": {"d": 2}}, "e": [1, 2]}
    lines = yaml_text(tree).splitlines()
    assert lines[0] == "a:" and lines[1].startswith("  # Why") and lines[-3] == "  b: 1"
    assert lines[-2:] == ["  c: {d: 2}", "e: [1, 2]"]
    assert yaml.safe_load("\n".join(lines)) == {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}


def test_comments_in_the_items_of_a_list() -> None:
    tree: dict[str, Tree] = {"pods": [{Commented("a", "First."): 1, Commented("b", "Second."): 2}]}
    text = yaml_text(tree)
    assert yaml.safe_load(text) == {"pods": [{"a": 1, "b": 2}]}
    assert "# First." in text and "# Second." in text
