"""Scores of grasp pictures by Gemini, with an end in time, a cap on the cost, and a stand-in.

What you should know before you use it:

- **The pictures leave your machine.** Each picture, the object's name and the wish are sent to
  Google, who may keep them and, on unpaid plans, let people read them. Everything else in this
  project stays here; a transcript (`realdex_jax.select.transcript`) replays without sending.
- **It costs money.** A request of eight pictures sends some 20 000 tokens by the worst-case count
  and gets about 1500 back. Prices are given in `GeminiConfig.prices`, and nothing is sent that
  might, by that count, bring the cost of all requests of a budget above `GeminiConfig.cap`. The
  count starts anew with each scorer, unless a `Budget` is given to several. A key of its own with
  a quota at Google is the second lock.
- **The key** is read from `GEMINI_API_KEY`, else `GOOGLE_API_KEY`, and is never written anywhere.
- Install with `pip install 'realdex_jax[gemini]'`.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType

from realdex_jax.select import budget, prompt, timing, transcript
from realdex_jax.select.client import (
    MAX_REQUEST,
    Client,
    GeminiConfig,
    GeminiError,
    Outcome,
)
from realdex_jax.select.scorer import Score, Scorer, Subject, Task
from realdex_jax.select.transcript import Entry, Key, Transcript

__all__ = ["GeminiConfig", "GeminiError", "GeminiScorer", "Usage"]

MAX_REASONS = 10
"""Reasons that `Usage.reasons` has at most."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Usage:
    """What all calls of a scorer came to so far; costs are in the currency of the prices."""

    asked: int = 0
    """Subjects that were to be scored."""
    answered: int = 0
    """Of them, those with a score of the model."""
    kept: int = 0
    """Of these, those that the transcript had before the call; nothing was sent for them."""
    stood_in: int = 0
    """Subjects that the stand-in scored; without one a call ends in an error, and none is."""
    requests: int = 0
    """Requests sent."""
    charged: float = 0.0
    """The most that they can have cost, by the count that the cap holds for."""
    reported: float = 0.0
    """What they cost by the usage that the replies report: likely the real cost."""
    unreported: int = 0
    """Requests that may have cost something, but whose usage never came."""
    reasons: Mapping[str, int] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    """Why subjects got no score of the model, and how many; the last ones only, the latest last."""


class _GaveUp(Exception):  # noqa: N818 - ends a call early, which then goes on with the stand-in
    """No further request makes sense in this call."""


class GeminiScorer:
    """Scores pictures of grasps by asking Gemini; a `realdex_jax.select.scorer.Scorer`.

    A call ends within `GeminiConfig.deadline` seconds, plus what the stand-in takes. What is
    answered is put into the transcript at once, and no picture that is in it is sent again. Safe to
    use from many threads, which share the budget and the pace; two that ask about the same picture
    at the same time may both pay for it. Use it as a context, to close its connections.
    """

    def __init__(
        self,
        config: GeminiConfig,
        fallback: Scorer | None = None,
        answers: Transcript | None = None,
        money: budget.Budget | None = None,
        clock: timing.Timing | None = None,
    ) -> None:
        """Prepares; nothing is sent yet.

        Args:
            config: Whom to ask, how patiently, and what it may cost.
            fallback: Scores what Gemini did not; without one such a call ends in an error.
            answers: Where answers are kept; without one, in memory.
            money: A budget shared with others, instead of one of `config.cap`.
            clock: Time and chance.

        Raises:
            GeminiError: google-genai is not installed, or there is no key.
        """
        self.name = config.model
        self.config = config
        self.budget = budget.Budget(config.cap) if money is None else money
        self.transcript = Transcript() if answers is None else answers
        self._fallback = fallback
        self._clock = clock or timing.Timing()
        self._pace = timing.Pace(config.per_minute)
        self._client = Client(config, self._clock)
        self._usage = Usage()
        self._useless = ""  # why no request of this scorer makes sense any more
        self._lock = threading.Lock()

    def __enter__(self) -> "GeminiScorer":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        self._client.close()

    def score(self, task: Task, subjects: Sequence[Subject]) -> list[Score]:
        """One score per subject, in their order, from Gemini or from the stand-in.

        Once the key is refused or the model unknown, this scorer sends nothing more, and says so
        in the log of that call alone.

        Raises:
            GeminiError: Gemini gave no score of a subject, and there is no stand-in.
        """
        deadline = self._clock.monotonic() + self.config.deadline
        level = logging.DEBUG if self._useless else logging.WARNING
        keys = transcript.keys(self.name, task, subjects)
        batches, reasons = self._plan(keys, subjects)
        kept = sum(key not in reasons for key in keys)
        gave_up = ""
        for batch in batches:
            try:
                reason = gave_up or self._ask(task, batch, deadline)
            except _GaveUp as error:
                reason = gave_up = str(error)
            reasons.update((key, reason) for key, _ in batch)
        found = [self.transcript.find(key) for key in keys]
        missing = [keys[i] for i, score in enumerate(found) if score is None]
        self._count(
            [reasons[key] for key in missing],
            asked=len(keys),
            answered=len(keys) - len(missing),
            kept=kept,
        )
        return self._collect(task, subjects, keys, found, reasons, level)

    def report(self) -> Usage:
        """What all calls came to so far."""
        with self._lock:
            return self._usage

    def worst_case(
        self, task: Task, pictures: Sequence[bytes], attempts: int | None = None
    ) -> float:
        """The most that scoring these pictures can cost, if it were not for the cap; sends nothing.

        What the transcript has, and what cannot be sent, costs nothing.

        Args:
            task: The task.
            pictures: PNGs, as `Subject.picture`.
            attempts: Requests per batch; all that the config allows if not given. With 1 it is
                what the scores cost at most if all goes well.
        """
        attempts = self.config.attempts if attempts is None else attempts
        subjects = [Subject("", picture) for picture in pictures]
        batches, _ = self._plan(transcript.keys(self.name, task, subjects), subjects)
        costs = [
            self._worst(task, {100 + i: one.picture for i, (_, one) in enumerate(batch)})
            for batch in batches
        ]
        return attempts * sum(costs)

    def _plan(
        self, keys: Sequence[Key], subjects: Sequence[Subject]
    ) -> tuple[list[list[tuple[Key, Subject]]], dict[Key, str]]:
        """Batches to be asked about, and why what is neither in them nor known is not."""
        self.transcript.refresh()
        reasons: dict[Key, str] = {}
        wanted: dict[Key, Subject] = {}
        for key, subject in zip(keys, subjects, strict=True):
            if self.transcript.find(key) is None:
                reasons[key] = self._unfit(subject.picture)
                if not reasons[key]:
                    wanted[key] = subject  # the same picture twice is asked about once
        todo, size = list(wanted.items()), self.config.batch
        return [todo[i : i + size] for i in range(0, len(todo), size)], reasons

    def _worst(self, task: Task, pictures: dict[int, bytes]) -> float:
        """The most that one request about labelled pictures can cost."""
        sent = self._client.sent(task, pictures)
        return self.config.prices.cost(sent, self.config.max_output_tokens)

    def _count(self, reasons: Sequence[str] = (), **more: float) -> None:
        """Adds to the report."""
        with self._lock:
            old = self._usage
            told = dict(old.reasons)
            for reason in reasons:
                told[reason] = told.pop(reason, 0) + 1  # the latest last
            latest = dict(list(told.items())[-MAX_REASONS:])
            sums = {name: getattr(old, name) + value for name, value in more.items()}
            self._usage = dataclasses.replace(old, reasons=MappingProxyType(latest), **sums)

    def _collect(
        self,
        task: Task,
        subjects: Sequence[Subject],
        keys: Sequence[Key],
        found: Sequence[Score | None],
        reasons: dict[Key, str],
        level: int,
    ) -> list[Score]:
        """The scores of all subjects: those found, and the stand-in's for the rest."""
        missing = [i for i, score in enumerate(found) if score is None]
        scores = {i: score for i, score in enumerate(found) if score is not None}
        if missing:
            named: dict[str, list[str]] = {}
            for i in missing:
                named.setdefault(reasons[keys[i]], []).append(repr(subjects[i].name))
            text = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in named.items())
            _log.log(level, "%s gave no score of %d subjects: %s", self.name, len(missing), text)
            if self._fallback is None:
                raise GeminiError(f"{self.name} gave no score, and nothing stands in: {text}")
            stand_ins = self._fallback.score(task, [subjects[i] for i in missing])
            entries: list[Entry] = []
            for i, score in zip(missing, stand_ins, strict=True):
                reason = reasons[keys[i]]
                told = f"{score.explanation} ({self.name} gave no score: {reason})"
                scores[i] = dataclasses.replace(score, explanation=told)
                entries.append(Entry(keys[i], subjects[i].name, scores[i], reason))
            self.transcript.record(entries)
            self._count(stood_in=len(missing))
        return [scores[i] for i in range(len(subjects))]

    def _ask(self, task: Task, batch: Sequence[tuple[Key, Subject]], deadline: float) -> str:
        """Asks about a batch until all of it is answered; returns why something is missing.

        The labels are in no order that a name could speak of. After a reply that was cut off fewer
        pictures are asked about at a time.
        """
        labels = prompt.labels([one.picture for _, one in batch], self.config.seed)
        left = dict(sorted(zip(labels, batch, strict=True), key=lambda item: item[0]))
        reason, pause, most = "", 0.0, len(batch)
        for attempt in range(self.config.attempts):
            self._wait(pause, deadline, reason)
            asked = {i: left[i][1].picture for i in list(left)[:most]}
            outcome = self._send(task, asked, deadline, attempt)
            reason, pause = outcome.fault, 0.0
            if outcome.finish == "MAX_TOKENS":
                most = (len(asked) + 1) // 2
            if not outcome.fault:
                reading = prompt.read(outcome.text, list(asked), self.name)
                self.transcript.record(
                    [
                        Entry(left[i][0], left[i][1].name, score)
                        for i, score in reading.scores.items()
                    ]
                )
                left = {i: one for i, one in left.items() if i not in reading.scores}
                if not left:
                    return ""
                reason = "; ".join(reading.faults[:3])
                if not reason:
                    reason = "no request was left for it after a reply that was cut off"
                    continue
                if outcome.finish not in ("", "STOP"):
                    reason += f" (finish reason {outcome.finish})"
            else:
                config = self.config
                jitter = self._clock.uniform()
                pause = timing.backoff(attempt, config.first_pause, config.longest_pause, jitter)
                pause = max(pause, outcome.wait)
            tried = f"attempt {attempt + 1} of {self.config.attempts}"
            end = "; nothing more is sent" if outcome.useless else ""
            _log.warning("%s, %s, %d pictures: %s%s", self.name, tried, len(left), reason, end)
            if outcome.useless:
                self._useless = reason
                raise _GaveUp(reason)
            if not outcome.again:
                break
        return reason

    def _send(
        self, task: Task, pictures: dict[int, bytes], deadline: float, attempt: int
    ) -> Outcome:
        """One request, if the budget allows its worst case, and not beyond the deadline."""
        limit = min(self.config.timeout, deadline - self._clock.monotonic())
        try:
            reservation = self.budget.reserve(self._worst(task, pictures))
        except budget.BudgetError as error:
            raise _GaveUp(str(error)) from None
        outcome = Outcome(fault=f"no reply within {limit:.3g} s")  # charged in full
        try:
            with reservation, contextlib.suppress(timing.Late):
                outcome = timing.within(
                    limit, lambda: self._client.ask(task, pictures, limit, attempt)
                )
                if outcome.reported > reservation.amount:
                    _log.warning(
                        "%s reports a cost of %.4g, above the worst case of %.4g that was reserved",
                        *(self.name, outcome.reported, reservation.amount),
                    )
                reservation.settle(outcome.cost, outcome.reported)
        finally:
            self._count(
                requests=1,
                charged=reservation.charged,
                reported=outcome.reported,
                unreported=int(reservation.charged > 0 and outcome.reported == 0),
            )
        return outcome

    def _wait(self, pause: float, deadline: float, reason: str) -> None:
        """Waits before a request, or gives up if that would be too late or of no use."""
        if self._useless:
            raise _GaveUp(self._useless)
        before = f"; before that: {reason}" if reason else ""
        now = self._clock.monotonic()
        if now + pause >= deadline:
            raise _GaveUp(f"no time for another attempt, {pause:.3g} s from now{before}")
        if pause:
            self._clock.sleep(pause)
            now = self._clock.monotonic()
        start = self._pace.book(now, deadline)
        if start is None or start >= deadline:
            raise _GaveUp(f"{self.config.per_minute} requests per minute are used up{before}")
        if start > now:
            self._clock.sleep(start - now)

    def _unfit(self, picture: bytes) -> str:
        """Why a picture cannot be sent, or nothing."""
        most = MAX_REQUEST // self.config.batch
        if len(picture) > most:
            return f"its picture has {len(picture)} bytes; at most {most} in batches of this size"
        try:
            budget.picture_tokens(picture)
        except budget.BudgetError as error:
            return str(error)
        return ""
