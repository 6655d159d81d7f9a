"""The pages of a study, as HTML. No scripts, and nothing from elsewhere.

Pages know pictures by letters and random addresses alone: no method, object or file name reaches
them.
"""

import base64
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from study.ballots import StudyError
from study.design import HIGHEST, Mode

try:
    import jinja2
except ModuleNotFoundError as error:
    raise StudyError("the study's pages need jinja2: pip install 'realdex_jax[study]'") from error

_FOLDER = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Seen:
    """One picture or video as a page shows it."""

    letter: str
    """What the page calls it."""
    field: str
    """Name of its form field."""
    address: str
    moving: bool
    chosen: int | None
    """The value entered, if one was."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One trial as a page shows it."""

    number: int
    """From 1."""
    total: int
    seen: Sequence[Seen]
    revision: int
    """How many answers there are."""
    message: str = ""
    """What was wrong with the answer that was sent."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One value that can be given."""

    value: int
    label: str
    hint: str
    """The same in words, for those who hear the page."""


class Pages:
    """Makes the pages of one study."""

    def __init__(self, mode: Mode, question: str, methods: int, root: str) -> None:
        """Reads templates and style.

        Args:
            mode: How people answer.
            question: What they are asked.
            methods: How many pictures they see at once.
            root: The study's address, up to and with the last slash.
        """
        self._style = (_FOLDER / "style.css").read_text(encoding="utf-8")
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            style=self._style,
            mode=mode,
            question=question,
            root=root,
            choices=choices(mode, methods),
            highest=HIGHEST,
        )

    def policy(self) -> str:
        """The content security policy that the pages keep."""
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        return (
            f"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'sha256-{digest}'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )

    def welcome(self, trials: int, nonce: str) -> str:
        """What the study is, and the button that begins or continues it."""
        return self._render("welcome.html", trials=trials, nonce=nonce)

    def trial(self, step: Step, form_token: str, *, last: bool) -> str:
        """One trial.

        Args:
            step: What is shown.
            form_token: Proves that the form is ours.
            last: Whether the review comes next.
        """
        return self._render("trial.html", step=step, form_token=form_token, last=last)

    def review(self, total: int, form_token: str) -> str:
        """Ways back to every answer, and the button that ends the person's part."""
        return self._render("review.html", total=total, form_token=form_token)

    def thanks(self, form_token: str) -> str:
        """The end."""
        return self._render("thanks.html", form_token=form_token)

    def problem(self, title: str, text: str, *, inside: bool) -> str:
        """Something went wrong.

        Args:
            title: In a few words.
            text: What can be done.
            inside: Whether to show a way back into the study, whose address is in it.
        """
        return self._render("problem.html", title=title, text=text, inside=inside)

    def _render(self, template: str, **values: object) -> str:
        return self._templates.get_template(template).render(**values)


def choices(mode: Mode, methods: int) -> list[Choice]:
    """The values a picture can be given, in the order they are shown."""
    if mode == "rank":
        labels = [_ordinal(place) for place in range(1, methods + 1)]
        hints = ["the best", *[""] * (methods - 2), "the last"]
        return [
            Choice(place, label, hint)
            for place, (label, hint) in enumerate(zip(labels, hints, strict=True), 1)
        ]
    hints = ["not at all", *[""] * (HIGHEST - 1), "fully"]
    return [Choice(value, str(value), hint) for value, hint in enumerate(hints)]


def _ordinal(place: int) -> str:
    return f"{place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(place, 'th') }"
