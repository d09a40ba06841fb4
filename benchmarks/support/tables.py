"""Tables that benchmarks print and docs keep."""

from rich.table import Table


def table(title: str, headings: list[str], rows: list[list[str]]) -> Table:
    """A table for the terminal; numbers to the right."""
    result = Table(title=title)
    for number, heading in enumerate(headings):
        result.add_column(heading, justify="right" if number else "left")
    for row in rows:
        result.add_row(*row)
    return result


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    """The same as a Markdown table."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
