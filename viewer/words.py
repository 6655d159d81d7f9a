"""Texts for the page, which renders Markdown and the HTML in it, scripts included."""

import re

_MARKS = re.compile(r"([!-/:-@\[-`{-~])")


def plain(text: str) -> str:
    """Text that shows as it is, whoever wrote it: a file's name, an error, a model's answer.

    Every mark is escaped, so that none of it is Markdown or HTML; lines become one.
    """
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
