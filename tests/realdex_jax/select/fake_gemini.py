"""A server on loopback that speaks Gemini's generateContent, and misbehaves as it is told."""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import struct
import threading
import time
import zlib

from realdex_jax.select import prompt

TOKENS_PER_PICTURE = 1290
"""What this server counts a picture as."""


def png(number, side=64):
    """A small PNG, another for each number."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = (b"\0" + struct.pack(">I", number) + bytes(side - 4)) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def value(picture):
    """The score that this server gives a picture."""
    return hashlib.sha256(picture).digest()[0] % 51 / 10


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request."""

    pictures: dict
    """Pictures by label, base64 undone."""
    text: str
    """The text parts before the pictures."""
    body: dict
    headers: dict
    path: str
    at: float
    """Seconds on the monotonic clock."""


def entry(label, picture, **changes):
    """A good answer about one picture, or one with changes."""
    good = {
        "index": label,
        "explanation": f"The thumb opposes the fingers in picture {label}.",
        "aspects": dict.fromkeys(prompt.ASPECTS, value(picture)),
        "overall": value(picture),
    }
    return {**good, **changes}


def scores(asked, **changes):
    """A good reply to a request; changes go into its first entry."""
    entries = [entry(label, picture) for label, picture in asked.pictures.items()]
    entries[0] |= changes
    return {"scores": entries}


def envelope(text, finish="STOP", usage=None, **more):
    """Gemini's JSON around a text; `usage` None: an honest one."""
    honest = {"promptTokenCount": 100, "candidatesTokenCount": len(text) // 4}
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": finish}
    return {
        "candidates": [{**candidate, "index": 0}],
        "usageMetadata": honest if usage is None else usage,
        "modelVersion": "fake",
        **more,
    }


def say(text, **kwargs):
    """A fault: this text, whatever is asked; a dict is sent as JSON; a function makes it."""

    def act(handler, asked):
        said = text(asked) if callable(text) else text
        said = said if isinstance(said, str) else json.dumps(said)
        handler.send(200, envelope(said, **kwargs))

    return act


def status(code, message="no", headers=(), **error):
    """A fault: an error in Google's form."""

    def act(handler, asked):
        body = {"error": {"code": code, "message": message, "status": "X", **error}}
        handler.send(code, body, headers)

    return act


def raw(body, kind="application/json", code=200, headers=()):
    """A fault: these bytes."""
    return lambda handler, asked: handler.send(code, body, headers, kind)


def good(handler, asked):
    """No fault."""
    say(scores)(handler, asked)


def drop(handler, asked):
    """The connection ends without a word."""
    handler.close_connection = True


def half(handler, asked):
    """The connection ends in the middle of the body."""
    handler.close_connection = True
    handler.start(200, "application/json", 1000)
    handler.wfile.write(b'{"candidates": [')


def hang(handler, asked):
    """Nothing comes."""
    handler.close_connection = True
    handler.server.closing.wait(30)


def drip(handler, asked):
    """A byte now and then, each soon enough for a time-out between bytes."""
    handler.close_connection = True
    handler.start(200, "application/json", 10**6)
    with contextlib.suppress(OSError):
        while not handler.server.closing.wait(0.02):
            handler.wfile.write(b" ")


def huge(handler, asked, size=50_000_000):
    """Fifty megabytes; notes how many were taken."""
    handler.close_connection = True
    handler.start(200, "application/json", size)
    block = b" " * 65536
    with contextlib.suppress(OSError):
        for _ in range(size // len(block) + 1):
            handler.wfile.write(block)
            handler.server.owner.taken += len(block)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each reply waits 40 ms for an acknowledgement

    def do_POST(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = _asked(body, dict(self.headers), self.path)
        with owner.lock:
            owner.requests.append(asked)
            fault = owner.script.pop(0) if owner.script else owner.otherwise
        with contextlib.suppress(ConnectionError):
            fault(self, asked)

    def do_GET(self):
        self.server.owner.gets.append((self.path, dict(self.headers)))
        self.send(200, {})

    def start(self, code, kind, length, headers=()):
        self.send_response(code)
        for name, text in (
            {"Content-Type": kind, "Content-Length": length} | dict(headers)
        ).items():
            self.send_header(name, str(text))
        self.end_headers()

    def send(self, code, body, headers=(), kind="application/json; charset=UTF-8"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.start(code, kind, len(data), headers)
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512


class FakeGemini:
    """The server. `script` is used up by the first requests; the rest get `otherwise`."""

    def __init__(self, *script, otherwise=good):
        self.script = list(script)
        self.otherwise = otherwise
        self.requests = []
        self.gets = []
        self.taken = 0
        self.lock = threading.Lock()

    def __enter__(self):
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._server.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked_about(self, picture):
        """How many requests had this picture."""
        return sum(picture in asked.pictures.values() for asked in self.requests)


def _asked(body, headers, path):
    assert re.fullmatch(r"/v1\w*/models/[^/:?]+:generateContent", path), path
    parts = body["contents"][0]["parts"]
    pictures, texts, label = {}, [], None
    for part in parts:
        if "text" in part:
            match = re.fullmatch(r"Picture (\d+):", part["text"])
            label = int(match[1]) if match else None
            texts += [] if match else [part["text"]]
        else:
            data = part["inlineData"]
            assert data.get("mimeType", data.get("mime_type")) == "image/png", list(data)
            letters = data["data"].replace("+", "-").replace("/", "_")
            pictures[label] = base64.urlsafe_b64decode(letters)
    return Asked(pictures, "\n".join(texts), body, headers, path, time.monotonic())
