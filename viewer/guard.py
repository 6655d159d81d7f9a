"""Who may talk to the viewer: whoever opened the address with its token, from a page of its own.

viser has no authentication. The guard stands before it: every request, the page's and that of the
connection behind it, is judged before viser sees it. Nothing here knows viser.
"""

import hmac
from dataclasses import dataclass, field
from secrets import token_urlsafe
from urllib.parse import parse_qs, urlsplit

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that nobody else can reach."""
COOKIE = "realdex_view"
"""Begins the name of the cookie; the port follows, for cookies are a host's, not a port's."""
HEADERS = {
    "Content-Security-Policy": (
        # The page is one file: code, styles and pictures are in it, and it asks this server only.
        # It unpacks its code into text and evaluates that.
        "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' 'self' blob: data:; "
        "style-src 'unsafe-inline'; img-src data: blob:; font-src data: blob:; "
        "connect-src 'self' data: blob:; worker-src blob: data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Of every answer."""


@dataclass(frozen=True)
class Asked:
    """What a request says of itself."""

    path: str
    """With what follows the question mark."""
    host: str = ""
    origin: str = ""
    """Of the page that asks; empty where no page does."""
    cookies: str = ""


@dataclass(frozen=True)
class Answer:
    """What is answered in viser's place."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Guard:
    """What is let in."""

    hosts: frozenset[str] | None = LOCAL
    """Names in the Host header; None for any, where the server listens to others."""
    token: str = field(default_factory=lambda: token_urlsafe(24))
    """What the printed address has and others do not know."""

    def judge(self, asked: Asked) -> Answer | None:
        """The answer to a request that viser must not see; None lets it pass."""
        name, port = _host(asked.host)
        if not name or (self.hosts is not None and name not in self.hosts):
            return Answer(421, "unknown host name\n")
        if asked.origin and urlsplit(asked.origin).netloc.lower() != asked.host.lower():
            return Answer(403, "another site's page may not ask\n")
        path, _, query = asked.path.partition("?")
        if path != "/":  # there is one page; viser would look for files
            return Answer(404, "there is nothing here\n")
        given = parse_qs(query).get("token", [""])[0]
        if given and self._knows(given):
            kept = f"{COOKIE}_{port}={self.token}; Path=/; HttpOnly; SameSite=Lax"
            return Answer(303, "", {"Location": "/", "Set-Cookie": kept})
        if not self._knows(_cookie(asked.cookies, f"{COOKIE}_{port}")):
            return Answer(403, "open the address that the program has printed, with its token\n")
        return None

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())


def _host(host: str) -> tuple[str, int]:
    """Name and port of a Host header; an empty name if it makes no sense."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").lower(), parts.port or 80
    except ValueError:
        return "", 80


def _cookie(cookies: str, name: str) -> str:
    pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
    return next((value for key, _, value in pairs if key == name), "")
