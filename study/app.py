"""The study as a web application.

Everything lies below /s/<token>/; who does not know the token gets "not found". A person is known
by a random cookie that scripts cannot read and other sites cannot send. Every form is answered
with a redirect, so that a reload sends nothing twice.
"""

import dataclasses
import hashlib
import hmac
import logging
import secrets
import sqlite3
from collections.abc import Collection, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from realdex_jax.errors import RealdexError
from study.ballots import (
    Answer,
    Ballots,
    ConflictError,
    FinishedError,
    Participant,
    StudyError,
)
from study.design import AnswerError
from study.guard import Asgi, Guard, TooLargeError
from study.pages import Pages, Seen, Step
from study.plan import Exhibit, Plan, PlanError, same

try:
    from fastapi import Depends, FastAPI, Path, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
    from starlette.exceptions import HTTPException
except ModuleNotFoundError as error:
    raise StudyError(
        "the study's server needs fastapi: pip install 'realdex_jax[study]'"
    ) from error

COOKIE = "participant"

_COOKIE_S = 30 * 24 * 3600
_FORM = "application/x-www-form-urlencoded"
_MEDIA_HEADERS: Mapping[str, str] = {
    "cache-control": "private, max-age=86400",
    # By default they would tell when the file was made, which may tell methods apart.
    "last-modified": "Thu, 01 Jan 1970 00:00:00 GMT",
    "etag": '"1"',
}
"""The same for all files: an address of this study never shows another file."""

_log = logging.getLogger(__name__)

Position = Annotated[int, Path(ge=1, le=10**6)]


def create(plan: Plan, ballots: Ballots, hosts: frozenset[str] | None) -> Asgi:
    """The application.

    Args:
        plan: What is shown.
        ballots: Where answers go.
        hosts: Names that a browser may know this server by; None for any.
    """
    study = Study(plan, ballots)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for method, path, endpoint in (
        ("GET", "", study.welcome),
        ("POST", "start", study.start),
        ("GET", "trial/{position}", study.trial),
        ("POST", "trial/{position}", study.answer),
        ("GET", "review", study.review),
        ("POST", "finish", study.finish),
        ("GET", "thanks", study.thanks),
        ("POST", "leave", study.leave),
        ("GET", "media/{name}", study.media),
    ):
        # The token is matched below, in constant time, not by the router.
        app.add_api_route(
            f"/s/{{token}}/{path}", endpoint, methods=[method], dependencies=[Depends(study.known)]
        )
    # Browsers ask for it by themselves, and would report that it is missing.
    app.add_api_route("/favicon.ico", lambda: Response(status_code=204))
    app.add_exception_handler(HTTPException, study.refused)
    app.add_exception_handler(RequestValidationError, study.refused)
    app.add_exception_handler(RealdexError, study.failed)
    app.add_exception_handler(sqlite3.Error, study.failed)
    return Guard(app, study.pages.policy(), hosts)


@dataclasses.dataclass(frozen=True)
class _Form:
    """A form that came from one of our pages, or looks so."""

    values: Mapping[str, str]

    def number(self, name: str) -> int | None:
        """A small whole number; None if nothing was entered.

        Raises:
            AnswerError: Something else was.
        """
        text = self.values.get(name, "")
        if not text:
            return None
        if len(text) > 6 or not (text.isascii() and text.isdigit()):
            raise AnswerError(f"{text[:20]!r} is not a number")
        return int(text)


async def _form(request: Request) -> _Form:
    """Reads a form; refuses what another site's page sent."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403)
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPException(403)
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != _FORM:
        raise HTTPException(415)
    form = await request.form(max_files=0, max_fields=40)
    return _Form({name: value for name, value in form.items() if isinstance(value, str)})


Form = Annotated[_Form, Depends(_form)]


class Study:
    """The addresses of a study."""

    def __init__(self, plan: Plan, ballots: Ballots) -> None:
        """Gives every file an address that says nothing.

        Args:
            plan: What is shown.
            ballots: Where answers go.
        """
        design = ballots.design
        self._ballots = ballots
        self._design = design
        self.root = f"/s/{ballots.token}/"
        self.pages = Pages(design.mode, design.question, len(design.methods), self.root)
        self._names: dict[tuple[int, int], str] = {}
        self._files: dict[str, Exhibit] = {}
        self._changed: set[str] = set()
        for t, trial in enumerate(plan.trials):
            for m, exhibit in enumerate(trial.exhibits):
                # Keyed with the study's secret: the same after a restart, and says nothing.
                name = self._sealed(f"media {t} {m}")
                self._names[t, m] = name
                self._files[name] = exhibit

    async def known(self, token: str) -> None:
        """Lets in who knows the study's token."""
        if not hmac.compare_digest(token.encode(), self._ballots.token.encode()):
            raise HTTPException(404)

    def welcome(self, request: Request) -> Response:
        """The first page; for somebody who has begun, where they were."""
        person = self._person(request)
        if person is not None:
            return self._to(self._next(person))
        return HTMLResponse(self.pages.welcome(len(self._design.trials), secrets.token_hex(16)))

    def start(self, request: Request, form: Form) -> Response:
        """Makes a participant, or continues.

        The cookie does not come along from a link on another page, but it does come here. A form
        that is sent twice makes one participant, since the cookie follows from it.
        """
        person = self._person(request)
        if person is not None:
            return self._to(self._next(person))
        nonce = form.values.get("nonce", "")
        if not 16 <= len(nonce) <= 64:
            raise HTTPException(400)
        cookie = self._sealed(f"participant {nonce}")
        response = self._to(self._next(self._ballots.start(cookie)))
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=_COOKIE_S,
            path=self.root,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def trial(self, request: Request, position: Position) -> Response:
        """Shows a trial with its last answer, if it has one."""
        person = self._person(request)
        if person is None:
            return self._to("")
        answers = self._ballots.answers(person.number)
        if person.finished or not self._open(person, position, answers):
            return self._to(self._next(person, answers))
        return self._page(request, person, position, answers)

    def answer(self, request: Request, position: Position, form: Form) -> Response:
        """Stores an answer and goes on; one that is none comes back with what was entered."""
        person = self._own(request, form)
        if person is None:
            return self._to("")
        answers = self._ballots.answers(person.number)
        if not self._open(person, position, answers):
            return self._to(self._next(person, answers))
        trial, shown = person.shown[position - 1]
        entered = [form.number(f"value-{place}") for place in range(len(shown))]
        revision = form.number("revision")
        if revision is None:
            raise HTTPException(400)
        points = [0] * len(shown)
        try:
            missing = [_letter(place) for place, value in enumerate(entered) if value is None]
            if missing:
                raise AnswerError(f"no value yet for {', '.join(missing)}")
            for place, method in enumerate(shown):
                value = entered[place]
                assert value is not None
                points[method] = self._flip(value)
            self._ballots.vote(person.number, trial, revision, points)
        except AnswerError as error:
            text = f"Not stored: {error}."
            return self._page(request, person, position, answers, entered, text, 422)
        except ConflictError:
            text = "This was answered in another window. What is stored is shown; change it here."
            answers = self._ballots.answers(person.number)
            return self._page(request, person, position, answers, message=text, status=409)
        except FinishedError:
            return self._to("thanks")
        return self._to(self._next(person, {*answers, trial}))

    def review(self, request: Request) -> Response:
        """The page before the end."""
        person = self._person(request)
        if person is None or self._next(person) != "review":
            return self._to("" if person is None else self._next(person))
        return HTMLResponse(self.pages.review(len(person.shown), self._form_token(request)))

    def finish(self, request: Request, form: Form) -> Response:
        """Ends a person's part."""
        person = self._own(request, form)
        if person is None:
            return self._to("")
        try:
            self._ballots.finish(person.number)
        except AnswerError:
            return self._to(self._next(person))
        return self._to("thanks")

    def thanks(self, request: Request) -> Response:
        """The end."""
        person = self._person(request)
        if person is None or not person.finished:
            return self._to("" if person is None else self._next(person))
        return HTMLResponse(self.pages.thanks(self._form_token(request)))

    def leave(self, request: Request, form: Form) -> Response:
        """Makes room for the next person at this device; only at the end."""
        person = self._own(request, form)
        response = self._to("")
        if person is not None and person.finished:
            response.delete_cookie(COOKIE, path=self.root, httponly=True, samesite="strict")
        return response

    def media(self, name: str) -> Response:
        """One picture or video. Names are looked up, never joined to a path.

        A file that is gone, or is not the one that the study began with, is not shown.
        """
        exhibit = self._files.get(name)
        if exhibit is None:
            raise HTTPException(404)
        try:
            exhibit = self._files[name] = same(exhibit)
        except PlanError as error:
            if name not in self._changed:
                self._changed.add(name)
                _log.error("not shown: %s", error)
            raise HTTPException(404) from None
        self._changed.discard(name)
        return FileResponse(exhibit.path, media_type=exhibit.media_type, headers=_MEDIA_HEADERS)

    def refused(self, request: Request, error: Exception) -> Response:
        """A page for what is not there or not allowed."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        return self._problem(request, status)

    def failed(self, request: Request, error: Exception) -> Response:
        """A page for what could not be done; nothing of it was stored."""
        if isinstance(error, TooLargeError):
            return self._problem(request, 413)
        return self._problem(request, 400 if isinstance(error, AnswerError) else 503)

    def _problem(self, request: Request, status: int) -> Response:
        title, text = _PROBLEMS.get(status, _PROBLEMS[404])
        inside = request.url.path.startswith(self.root)
        return HTMLResponse(self.pages.problem(title, text, inside=inside), status)

    def _person(self, request: Request) -> Participant | None:
        cookie = request.cookies.get(COOKIE)
        return self._ballots.participant(cookie) if cookie else None

    def _own(self, request: Request, form: _Form) -> Participant | None:
        """The person who sends a form that we gave them."""
        person = self._person(request)
        if person is not None:
            given = form.values.get("form_token", "").encode()
            if not hmac.compare_digest(given, self._form_token(request).encode()):
                raise HTTPException(403)
        return person

    def _form_token(self, request: Request) -> str:
        return self._sealed(f"form {request.cookies.get(COOKIE, '')}")

    def _sealed(self, text: str) -> str:
        """A name that only this study can make."""
        return hmac.new(self._ballots.secret, text.encode(), hashlib.sha256).hexdigest()[:32]

    def _to(self, path: str) -> Response:
        return RedirectResponse(self.root + path, 303)

    def _next(self, person: Participant, answered: Collection[int] | None = None) -> str:
        """Where a person goes on, with these trials answered; if not given, those stored."""
        if person.finished:
            return "thanks"
        if answered is None:
            answered = self._ballots.answers(person.number)
        for position, (trial, _) in enumerate(person.shown, 1):
            if trial not in answered:
                return f"trial/{position}"
        return "review"

    @staticmethod
    def _open(person: Participant, position: int, answered: Collection[int]) -> bool:
        """Whether a trial can be seen: all before it are answered."""
        before = person.shown[: position - 1]
        return position <= len(person.shown) and all(trial in answered for trial, _ in before)

    def _flip(self, value: int) -> int:
        """Points of a place, or the place of points; a score is itself."""
        return len(self._design.methods) + 1 - value if self._design.mode == "rank" else value

    def _page(
        self,
        request: Request,
        person: Participant,
        position: int,
        answers: Mapping[int, Answer],
        entered: list[int | None] | None = None,
        message: str = "",
        status: int = 200,
    ) -> Response:
        """A trial as a person sees it: with what they entered, or else with what is stored."""
        trial, shown = person.shown[position - 1]
        stored = answers.get(trial)
        if entered is None and stored is not None:
            entered = [self._flip(stored.points[method]) for method in shown]
        seen = [
            Seen(
                letter=_letter(place),
                field=f"value-{place}",
                address=f"{self.root}media/{self._names[trial, method]}",
                moving=self._files[self._names[trial, method]].moving,
                chosen=None if entered is None else entered[place],
            )
            for place, method in enumerate(shown)
        ]
        revision = 0 if stored is None else stored.revision + 1
        step = Step(position, len(person.shown), seen, revision, message)
        page = self.pages.trial(step, self._form_token(request), last=position == len(person.shown))
        return HTMLResponse(page, status)


_PROBLEMS: Mapping[int, tuple[str, str]] = {
    400: ("Not understood", "The form was not complete. Go back and try again."),
    403: ("Not allowed", "The form did not come from this study's own page. Nothing was stored."),
    404: ("Not found", "There is nothing at this address. Is the link complete?"),
    405: ("Not allowed", "This address does not take that kind of request."),
    413: ("Too large", "The request is larger than any form of this study."),
    415: ("Not understood", "Only the forms of this study are taken."),
    503: ("Not stored", "The answer could not be stored. Please go back and send it again."),
}


def _letter(place: int) -> str:
    return "ABCDEFGH"[place]
