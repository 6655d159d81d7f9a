"""One request to Gemini and what came of it, as a value: no exception of the library gets out.

This is the only file that imports google-genai, and the only one that knows the key. The key comes
from the environment, goes into a header of requests to `GeminiConfig.base_url`, and is taken out of
every text that comes back, since a server may repeat it. Redirects are not followed.
"""

import dataclasses
import logging
import math
import os
import re
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from realdex_jax.errors import RealdexError
from realdex_jax.select import budget, prompt, timing
from realdex_jax.select.scorer import Task

if TYPE_CHECKING:
    from google import genai
    from google.genai import errors, types

KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
"""Environment variables that may hold the key; the first that is set counts."""

MAX_BODY = 2_000_000
"""Bytes of the longest reply that is taken in."""
MAX_REQUEST = 14_000_000
"""Bytes of all pictures of one request; Gemini takes 20 MB after they are put into letters."""
_MARGIN = 256
"""Tokens that a request may have beside its texts and pictures: marks between its parts."""
_AGAIN = (408, 429)
_USELESS = (401, 403, 404)
"""Statuses after which no other request will fare better."""
_BLOCKED = ("SAFETY", "PROHIBITED_CONTENT", "RECITATION", "BLOCKLIST", "SPII", "IMAGE_SAFETY")
"""Finish reasons of a reply that was held back: the same request meets the same end."""
_LOGS = ("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.proxy")
"""Where the transport logs what comes back."""
_GOOGLES = ("code", "message", "status")
"""Fields of the errors of Google's own servers."""


class GeminiError(RealdexError):
    """Gemini cannot be asked as things are, or gave no score and nothing stands in for it."""


@dataclasses.dataclass(frozen=True)
class GeminiConfig:
    """Whom to ask, how patiently, and what it may cost."""

    model: str
    """Name of a Gemini model that sees pictures."""
    prices: budget.Prices
    """Its prices; they change, so there is no default."""
    cap: float = 1.0
    """Most that all requests of one scorer may cost, in the currency of the prices."""
    batch: int = 8
    """Pictures per request."""
    attempts: int = 4
    """Requests per batch, the first included."""
    deadline: float = 120.0
    """Seconds for one call of the scorer."""
    timeout: float = 40.0
    """Seconds for one request."""
    per_minute: int = 60
    """Requests in any 60 seconds."""
    temperature: float = 0.0
    """0: the likeliest reply."""
    seed: int = 0
    """Fixes what chance is left; the model may still answer differently another time."""
    max_output_tokens: int = 8192
    """Longest reply, thoughts included; a part of the worst case that is reserved."""
    thinking_budget: int | None = None
    """Tokens the model may think; 0: none, where the model allows it, which makes the count of
    what was spent tighter; None: as it likes."""
    first_pause: float = 1.0
    """Seconds before the second attempt; they double with each."""
    longest_pause: float = 30.0
    """Longest of these pauses; one that the server asks for may be longer."""
    base_url: str = "https://generativelanguage.googleapis.com"
    """Where to ask."""

    def __post_init__(self) -> None:
        """Refuses settings that make no sense."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.model):
            raise GeminiError(f"model {self.model!r}: letters, digits, dots and dashes only")
        for name, top in (("batch", 64), ("attempts", 20), ("per_minute", 10**6)):
            if not 1 <= getattr(self, name) <= top:
                raise GeminiError(f"{name} {getattr(self, name)}; it is from 1 to {top}")
        for name in ("deadline", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise GeminiError(f"{name} {getattr(self, name)} s; it is more than 0 and finite")
        if self.max_output_tokens < 1:
            raise GeminiError(f"max_output_tokens {self.max_output_tokens}; it is at least 1")
        if not _allowed(self.base_url):  # not shown, since it may hold a password
            raise GeminiError(
                "base_url is https://HOST, or http:// on this machine, without user, password "
                "or query"
            )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    text: str = ""
    """What the model wrote, if there is no fault."""
    finish: str = ""
    """Why it stopped writing."""
    fault: str = ""
    """Why there is no text."""
    again: bool = True
    """Whether the same request may fare better another time."""
    useless: bool = False
    """Whether no request will fare better."""
    wait: float = 0.0
    """Seconds that the server asks to wait."""
    cost: float = math.inf
    """The most it can have cost by our own count; infinite: all that was reserved."""
    reported: float = 0.0
    """What it cost by the server's count."""


class Client:
    """Asks one model. Safe to use from many threads."""

    def __init__(self, config: GeminiConfig, clock: timing.Timing) -> None:
        """Takes the key from the environment.

        Raises:
            GeminiError: google-genai is not installed, or there is no key.
        """
        self._config = config
        self._clock = clock
        made = _made(config)
        if isinstance(made, str):  # raised here, where no variable holds the key
            raise GeminiError(made)
        self._client, self._hide = made
        for name in _LOGS:
            logging.getLogger(name).addFilter(self._keyless)

    def close(self) -> None:
        """Closes the connections; requests under way fail."""
        self._client.close()
        for name in _LOGS:
            logging.getLogger(name).removeFilter(self._keyless)

    def _keyless(self, record: logging.LogRecord) -> bool:
        """Takes the key out of a line of a log: a server may send it back in a header."""
        record.msg, record.args = self._hide(record.getMessage()), ()
        return True

    def sent(self, task: Task, pictures: Mapping[int, bytes]) -> int:
        """The most tokens that asking about these pictures can count as; a token has a byte."""
        labels = list(pictures)
        texts = [prompt.instruction(), prompt.question(task, labels), repr(prompt.schema(labels))]
        texts += [prompt.label(number) for number in labels]
        letters = sum(len(text.encode()) for text in texts)
        return letters + _MARGIN + sum(budget.picture_tokens(one) for one in pictures.values())

    def ask(
        self, task: Task, pictures: Mapping[int, bytes], timeout: float, attempt: int = 0
    ) -> Outcome:
        """Asks about labelled pictures; whatever goes wrong is in the outcome.

        Another attempt has another seed: the same question would get the same useless reply.
        """
        import httpx2
        from google.genai import errors

        try:
            reply = self._request(task, pictures, timeout, attempt)
            return self._outcome(reply, self.sent(task, pictures))
        except errors.APIError as error:
            fault = f"status {error.code}: {self._clean(str(error.message))}"
            useless = error.code in _USELESS or "API_KEY_INVALID" in str(error.details)
            again = not useless and (error.code in _AGAIN or error.code >= 500)
            if 300 <= error.code < 400:
                fault = f"status {error.code}: redirects are not followed"
            # Google does not bill requests that it answers with an error; a gateway's error may
            # come after Google was done.
            cost = 0.0 if _from_google(error) else math.inf
            return Outcome("", "", fault, again, useless, self._wait(error), cost=cost)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return Outcome(fault=f"no connection: {self._clean(str(error))}", cost=0.0)
        except httpx2.TimeoutException:  # in the words of the caller, whose clock may be the first
            return Outcome(fault=f"no reply within {timeout:.3g} s")
        except Exception as error:
            return Outcome(fault=f"{type(error).__name__}: {self._clean(str(error))}")

    def _request(
        self, task: Task, pictures: Mapping[int, bytes], timeout: float, attempt: int
    ) -> "types.GenerateContentResponse":
        from google.genai import types

        labels = list(pictures)
        parts = [types.Part.from_text(text=prompt.question(task, labels))]
        for number, picture in pictures.items():
            parts.append(types.Part.from_text(text=prompt.label(number)))
            parts.append(types.Part.from_bytes(data=picture, mime_type="image/png"))
        thinking = self._config.thinking_budget
        return self._client.models.generate_content(
            model=self._config.model,
            contents=types.Content(role="user", parts=parts),
            config=types.GenerateContentConfig(
                system_instruction=prompt.instruction(),
                temperature=self._config.temperature,
                seed=self._config.seed + attempt,
                candidate_count=1,
                max_output_tokens=self._config.max_output_tokens,
                response_mime_type="application/json",
                response_json_schema=prompt.schema(labels),
                thinking_config=None
                if thinking is None
                else types.ThinkingConfig(thinking_budget=thinking),
                automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                http_options=types.HttpOptions(timeout=max(1, math.ceil(1000 * timeout))),
            ),
        )

    def _outcome(self, reply: "types.GenerateContentResponse", sent: int) -> Outcome:
        """The outcome of a request that was answered."""
        candidate = reply.candidates[0] if reply.candidates else None
        content = candidate.content if candidate else None
        written = [part.text or "" for part in (content.parts if content else None) or []]
        thoughts = [part.thought for part in (content.parts if content else None) or []]
        text = "".join(w for w, thought in zip(written, thoughts, strict=True) if not thought)
        stopped = candidate.finish_reason if candidate else None
        finish = self._clean(str(stopped.name)) if stopped else ""  # any word a server gives
        tokens = self._config.max_output_tokens
        if self._config.thinking_budget == 0:
            tokens = min(tokens, sum(len(w.encode(errors="replace")) for w in written))
        cost = self._config.prices.cost(sent, tokens)
        usage = reply.usage_metadata
        reported = 0.0
        if usage is not None:
            thought = max(0, usage.thoughts_token_count or 0)
            answer = max(0, usage.candidates_token_count or 0)
            asked = max(0, usage.prompt_token_count or 0)
            reported = self._config.prices.cost(asked, answer + thought)
        refused = reply.prompt_feedback.block_reason if reply.prompt_feedback else None
        blocked = refused.name if refused else finish if finish in _BLOCKED else ""
        fault = f"blocked: {self._clean(blocked)}" if blocked else ""
        if not fault and not text.strip():
            fault = f"an empty reply (finish reason {finish or 'not given'})"
        text = self._hide(text)
        if not fault and any(self._hide(form) != form for form in prompt.forms(text)):
            fault = "the reply holds the key in disguise"
        return Outcome(
            "" if fault else text, finish, fault, not blocked, cost=cost, reported=reported
        )

    def _clean(self, text: str) -> str:
        """A line of at most 200 characters without the key, as it stands or behind marks."""
        return self._hide(prompt.plain(self._hide(text), 20_000))[:200].rstrip()

    def _wait(self, error: "errors.APIError") -> float:
        """Seconds to wait by the header, or by the RetryInfo that Gemini puts into the body."""
        headers = getattr(error.response, "headers", {})
        asked = timing.retry_after(headers.get("retry-after"), self._clock.wall())
        found = re.search(r"'retryDelay': '([0-9]{1,6})(?:\.[0-9]+)?s'", str(error.details))
        return max(asked, float(found[1]) if found else 0.0)


def _from_google(error: "errors.APIError") -> bool:
    details = error.details
    told = details.get("error", details) if isinstance(details, dict) else None
    return isinstance(told, dict) and all(name in told for name in _GOOGLES)


def _allowed(base_url: str) -> bool:
    try:
        url = urllib.parse.urlsplit(base_url)
        host, _ = url.hostname, url.port
    except ValueError:  # brackets that do not close, or a port that is none
        return False
    own = host in ("127.0.0.1", "::1", "localhost")
    secure = url.scheme == "https" or (url.scheme == "http" and own)
    # What follows a question mark may be a key, and the address is told in reports.
    return bool(host) and "@" not in url.netloc and not (url.query or url.fragment) and secure


def _made(config: GeminiConfig) -> "tuple[genai.Client, Callable[[str], str]] | str":
    """The library's client and what takes the key out of a text; or why there is none."""
    try:
        from google import genai
        from google.genai import types
    except ImportError as error:
        return (
            f"asking Gemini needs google-genai ({error}): "
            "install it with pip install 'realdex_jax[gemini]'"
        )
    held = {name: os.environ.get(name, "").strip() for name in KEYS}
    name = next((name for name in KEYS if held[name]), None)
    if name is None:
        return f"asking Gemini needs a key in the environment variable {' or '.join(KEYS)}"
    key = held[name]
    if not re.fullmatch(r"[!#-\[\]-~]{8,}", key):  # what JSON writes in another way is none
        return (
            f"{name} holds no key: it is one word of at least 8 ASCII characters, without "
            "quotation mark or backslash"
        )
    # The library would print every word of a reply that it does not know, such as the key.
    warnings.filterwarnings("ignore", r"(?s).* is not a valid ", module=r"google\.genai")
    try:
        client = genai.Client(
            api_key=key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=config.base_url,
                retry_options=types.HttpRetryOptions(attempts=1),  # attempts are counted by us
                client_args=_transport(config.timeout),
            ),
        )
    except Exception as error:
        return f"google-genai made no client: {str(error).replace(key, '[key]')}"
    return client, lambda text: text.replace(key, "[key]")


def _transport(timeout: float) -> dict[str, Any]:
    """Settings of an HTTP client that follows no redirect and takes in no more than it should."""
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        """A body that ends after `MAX_BODY` bytes or `timeout` seconds."""

        def __init__(self, stream: httpx2.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size, end = 0, time.monotonic() + timeout
            for chunk in self._stream:
                size += len(chunk)
                if size > MAX_BODY:
                    raise GeminiError(f"the reply is longer than {MAX_BODY} bytes")
                if time.monotonic() > end:
                    raise GeminiError(f"the reply did not end within {timeout:g} s")
                yield chunk

        def close(self) -> None:
            self._stream.close()

    def bound(response: httpx2.Response) -> None:
        # Nothing packed was asked for, and a small packed body may be a huge one.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise GeminiError("the reply is packed, though that was not asked for")
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = Bounded(response.stream)

    return {
        "follow_redirects": False,
        "headers": {"accept-encoding": "identity"},
        "limits": httpx2.Limits(max_connections=None),
        "event_hooks": {"response": [bound]},
    }
