"""What a job's docstring says: what it does, examples, expected time; for `--help` and the page.

A docstring begins with one line, has its examples indented by four, and the time in the sentence
that begins with "Takes".
"""

import dataclasses
import re
import shutil
import textwrap

_INDENT = 4 * " "


@dataclasses.dataclass(frozen=True)
class Explained:
    """A docstring in its parts."""

    what: str
    """Its first line."""
    body: str
    """The rest, without the sentence about time."""
    takes: str
    """Expected time; empty if it does not say."""


def read(docstring: str) -> Explained:
    """Takes a docstring apart."""
    what, _, body = docstring.partition("\n")
    found = re.search(r"^Takes ((?:.|\n(?!\n))+?)\.$", body, re.MULTILINE)
    takes = " ".join(found[1].split()) if found else ""
    if found:
        body = body.replace(found[0], "")
    return Explained(what.strip(), body.strip("\n"), takes)


def paragraphs(body: str) -> list[str]:
    """The paragraphs of a body."""
    return re.split(r"\n\s*\n", body.strip("\n"))


def example(paragraph: str) -> bool:
    """Whether a paragraph is one of examples."""
    return all(line.startswith("    ") for line in paragraph.splitlines())


def helped(docstring: str) -> str:
    """A docstring as `--help` shows it: what, examples, details, time."""
    explained = read(docstring)
    shown = [explained.what]
    parts = paragraphs(explained.body) if explained.body else []
    prose = [part for part in parts if not example(part)]
    for heading, lines in (
        ("Examples", [part for part in parts if example(part)]),
        ("Details", [_wrapped(part, "- " if len(prose) > 1 else "") for part in prose]),
        ("Takes", [_wrapped(explained.takes)] if explained.takes else []),
    ):
        if lines:
            shown.append("\n".join((f"{heading}:", *lines)))
    return "\n\n".join(shown)


def _wrapped(paragraph: str, mark: str = "") -> str:
    """As lines, indented: tyro joins other lines again and leaves the breaks to the terminal."""
    return textwrap.fill(
        " ".join(paragraph.split()),
        min(100, shutil.get_terminal_size().columns),
        initial_indent=_INDENT + mark,
        subsequent_indent=_INDENT + " " * len(mark),
        break_on_hyphens=False,
    )
