"""Conditions over columns of the index, written like Python: `language in ('en', 'de') and quality.snr_db > 20`.

The text is parsed and never run: of Python's syntax only comparisons, `and`, `or`, `not`, `in`, `is None`, the four
operations of arithmetic, `len` and `lower` are known, and columns, numbers and texts. Kinds are checked before any clip
is looked at. As in SQL, what is compared with a null is neither true nor false, and a clip is taken where the whole is
true.
"""

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from voxmill.data.schemas import CLIPS

Kind = Literal["number", "text", "truth", "list", "null"]
Value = object
MAX_CHARACTERS, MAX_DEPTH = 4000, 60
_COMPARISONS: dict[type[ast.cmpop], Callable[..., bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS = ("len", "lower")
# What SQL and other languages write.
_HABITS = re.compile(r"(?<![=<>!])=(?!=)|<>|&&|\|\||!(?!=)|\b(?:AND|OR|NOT|IN|IS|LIKE)\b")
_WRITTEN_HERE = {"=": "==", "<>": "!=", "&&": "and", "||": "or", "!": "not", "LIKE": "'part' in column"}
_SPELLINGS = {"true": "True", "false": "False", "null": "None", "none": "None", "NULL": "None", "nan": "None"}
_ALLOWED = "use columns, numbers, texts, == != < <= > >= in is + - * / and or not, len() and lower()"


@dataclass(frozen=True, slots=True)
class _Term:
    """A part of a condition: its kind, what it is called in messages, and its value for a record."""

    kind: Kind
    text: str
    of: Callable[[object], Value]


class Condition:
    """A condition that is parsed and checked.

    Args:
        text: the condition.
        columns: those of `clips.parquet` that it may name. later: others, which messages say are not known yet.

    Raises:
        ValueError: it is none; one line that names the column or token, and what to do.
    """

    def __init__(self, text: str, columns: Collection[str] = tuple(CLIPS.names), later: Collection[str] = ()):
        self.text, self._columns, self._later = text, columns, later
        if not text.strip():
            raise ValueError("is empty; write null for no condition")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"has {len(text)} characters; at most {MAX_CHARACTERS} are read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(text.replace("\n", " ").strip(), mode="eval")
        except SyntaxError as error:
            habit = _HABITS.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", text))
            if habit is not None:
                better = _WRITTEN_HERE.get(habit[0], habit[0].lower())
                raise ValueError(f"cannot be read: {habit[0]} is not known; write {better}") from None
            where = f" at character {error.offset}" if error.offset else ""
            raise ValueError(f"cannot be read{where} ({error.msg}); {_ALLOWED}") from None
        except (ValueError, RecursionError, MemoryError):
            raise ValueError(f"cannot be read; {_ALLOWED}") from None
        if _depth(tree) > MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} deep; write it flatter")
        self._whole = self._truth(tree.body)

    def __call__(self, record: object) -> bool:
        """Whether it is true of a record whose attributes are the columns."""
        return self._whole.of(record) is True

    def _truth(self, node: ast.expr) -> _Term:
        term = self._term(node)
        if term.kind != "truth":
            raise ValueError(f"{term.text} is {_a(term.kind)}, no condition; compare it, such as {_example(term)}")
        return term

    def _number(self, node: ast.expr) -> _Term:
        term = self._term(node)
        if term.kind != "number":
            raise ValueError(f"{term.text} is {_a(term.kind)}, no number to calculate with")
        return term

    def _term(self, node: ast.expr) -> _Term:
        text = _short(node)
        match node:
            case ast.BoolOp(op=op, values=values):
                return _joined(text, [self._truth(value) for value in values], isinstance(op, ast.And))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                negated = self._truth(operand).of
                return _Term("truth", text, lambda record: _not(negated(record)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                number = self._number(operand)
                return _Term("number", text, _calculation(operator.sub, _constant(0), number))
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
                raise ValueError(f"{text}: & | ~ are not known; write and, or, not")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                terms = self._number(left), self._number(right)
                return _Term("number", text, _calculation(_ARITHMETIC[type(op)], *terms))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                nodes = [left, *rights]
                pairs = zip(nodes, ops, rights, strict=False)
                return _joined(text, [self._comparison(*pair) for pair in pairs], True)
            case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
                return _constant(value)
            case ast.Name() | ast.Attribute():
                return self._column(node)
            case ast.Call(func=function, args=[argument], keywords=[]) if _short(function) in _FUNCTIONS:
                return self._call(_short(function), self._term(argument))
            case ast.Call(func=function):
                raise ValueError(f"{_short(function)}() is no function here; {_ALLOWED}")
        raise ValueError(f"{text} is not known here; {_ALLOWED}")

    def _call(self, name: str, argument: _Term) -> _Term:
        wanted: tuple[Kind, ...] = ("text", "list") if name == "len" else ("text",)
        if argument.kind not in wanted:
            raise ValueError(f"{name}({argument.text}): {argument.text} is {_a(argument.kind)}; it takes {wanted[0]}")
        if name == "len":
            return _Term("number", f"len({argument.text})", _with(argument, len))
        return _Term("text", f"lower({argument.text})", _with(argument, str.lower))

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Term:
        one = self._term(left)
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(one, right, isinstance(op, ast.NotIn))
        other = self._term(right)
        if isinstance(op, ast.Is | ast.IsNot):
            if other.kind != "null":
                raise ValueError(f"{one.text} is {other.text}: `is` is for None alone; write ==")
            wanted = isinstance(op, ast.Is)
            return _Term("truth", f"{one.text} is None", lambda record: (one.of(record) is None) == wanted)
        if "null" in (one.kind, other.kind):
            column = other.text if one.kind == "null" else one.text
            raise ValueError(f"nothing equals None; write {column} is None, or {column} is not None")
        if one.kind != other.kind or one.kind == "list":
            raise ValueError(
                f"{one.text} is {_a(one.kind)} and {other.text} is {_a(other.kind)}: {_advice(one, other)}"
            )
        if one.kind == "truth" and not isinstance(op, ast.Eq | ast.NotEq):
            raise ValueError(f"{one.text} is {_a(one.kind)}; it can be == or != only")
        return _Term("truth", one.text, _calculation(_COMPARISONS[type(op)], one, other))

    def _membership(self, one: _Term, right: ast.expr, negated: bool) -> _Term:
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            others = [self._term(element) for element in right.elts]
            odd = next((other for other in others if other.kind != one.kind), None)
            if odd is not None:
                raise ValueError(f"{odd.text} is {_a(odd.kind)}, but {one.text} is {_a(one.kind)}: {_advice(one, odd)}")
            if one.kind not in ("text", "number"):
                raise ValueError(f"{one.text} is {_a(one.kind)}; only texts and numbers can be in a list")

            def in_list(record: object) -> Value:
                value = one.of(record)
                return None if value is None else (value in [other.of(record) for other in others]) != negated

            return _Term("truth", one.text, in_list)
        whole = self._term(right)
        if one.kind != "text" or whole.kind != "text":
            raise ValueError(f"{one.text} in {whole.text}: write a list, such as {one.text} in ('a', 'b')")
        found: Callable[[str, str], bool] = lambda part, text: (part in text) != negated  # noqa: E731
        return _Term("truth", one.text, _calculation(found, one, whole))

    def _column(self, node: ast.expr) -> _Term:
        parts: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise ValueError(f"{_short(node)} is not known here; {_ALLOWED}")
        name = ".".join([inner.id, *parts])
        if name in _SPELLINGS:
            raise ValueError(f"{name} is no column; write {_SPELLINGS[name]}")
        if inner.id not in self._columns and inner.id in self._later:
            raise ValueError(f"{inner.id} is not known before clips are selected; name a column that is")
        known = _names(CLIPS, self._columns)
        if name not in known:
            fields = [one for one in known if one.startswith(f"{name}.")]
            if fields:
                raise ValueError(f"{name} has fields; name one, such as {fields[0]}")
            # A column's last part is what people remember.
            near = [one for one in known if one.rpartition(".")[2] == name] or difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "docs/dataset-format.md has all columns"
            raise ValueError(f"unknown column {name!r}; {hint}")
        names = (inner.id, *parts)
        return _Term(known[name], name, lambda record: _read(record, names))


def _names(schema: pa.Schema, columns: Collection[str]) -> dict[str, Kind]:
    """Columns and fields of structs, dotted, with their kinds."""
    names: dict[str, Kind] = {}

    def add(name: str, kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                add(f"{name}.{field.name}", field.type)
        else:
            names[name] = _kind(kind)

    for field in schema:
        if field.name in columns:
            add(field.name, field.type)
    return names


def _kind(kind: pa.DataType) -> Kind:
    if pa.types.is_boolean(kind):
        return "truth"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return "list" if pa.types.is_list(kind) else "text"


def _read(record: object, names: Sequence[str]) -> Value:
    """The value of a column; None also for a number that is none."""
    value = record
    for name in names:
        if value is None:
            return None
        value = getattr(value, name)
    return None if isinstance(value, float) and value != value else value


def _constant(value: bool | int | float | str | None) -> _Term:
    kind: Kind = "null" if value is None else "number"
    if isinstance(value, str):
        kind = "text"
    elif isinstance(value, bool):
        kind = "truth"
    return _Term(kind, repr(value), lambda record: value)


def _with(term: _Term, function: Callable[..., Value]) -> Callable[[object], Value]:
    def of(record: object) -> Value:
        value = term.of(record)
        return None if value is None else function(value)

    return of


def _calculation(function: Callable[..., Value], one: _Term, other: _Term) -> Callable[[object], Value]:
    """None where a side is, and where there is no result."""

    def of(record: object) -> Value:
        left, right = one.of(record), other.of(record)
        if left is None or right is None:
            return None
        try:
            return function(left, right)
        except (ZeroDivisionError, OverflowError):
            return None

    return of


def _joined(text: str, terms: Sequence[_Term], all_of: bool) -> _Term:
    """`and` or `or` of three values."""
    if len(terms) == 1:
        return _Term("truth", text, terms[0].of)

    def of(record: object) -> Value:
        unknown = False
        for term in terms:
            value = term.of(record)
            if value is (not all_of):
                return value
            unknown |= value is None
        return None if unknown else all_of

    return _Term("truth", text, of)


def _not(value: Value) -> Value:
    return None if value is None else not value


def _depth(tree: ast.AST) -> int:
    """Levels of a tree, without recursion."""
    level, depth = [tree], 0
    while level:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        depth += 1
    return depth


def _short(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _a(kind: Kind) -> str:
    return {"number": "a number", "text": "a text", "truth": "true or false", "list": "a list", "null": "None"}[kind]


def _example(term: _Term) -> str:
    return (
        f"len({term.text}) > 0"
        if term.kind == "list"
        else f"{term.text} == {'0' if term.kind == 'number' else repr('a')}"
    )


def _advice(one: _Term, other: _Term) -> str:
    kinds = {one.kind, other.kind}
    if kinds == {"number", "text"}:
        return "a text stands in quotes, a number without"
    return "compare what is of one kind"
