"""A clip's transcript as it enters training and exports."""

import re

_BETWEEN = re.compile(r"[\s()（）﹙﹚]+")


def plain_text(text: str) -> str:
    """A transcript without round brackets and on one line.

    At its start, brackets would read as a description: `"(" + description + ")" + text` is the format of described
    clips.
    """
    return _BETWEEN.sub(" ", text).strip()
