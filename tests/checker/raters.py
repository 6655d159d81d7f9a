"""People who take part in a study over HTTP, and plain pictures for them to see."""

import contextlib
import dataclasses
import html.parser
import http.client
import io
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

import av
import numpy as np
from PIL import Image

COLOURS = {
    "alpha": (200, 60, 50),
    "beta": (60, 150, 70),
    "gamma": (50, 90, 190),
    "delta": (200, 170, 40),
}
"""What the pictures of a method look like: people know them by colour, never by a name."""


def make_items(
    folder: pathlib.Path,
    objects: Sequence[str] = ("bottle", "mug"),
    methods: Sequence[str] = ("alpha", "beta", "gamma"),
    samples: int = 2,
    size: tuple[int, int] = (64, 48),
) -> pathlib.Path:
    """Writes a folder of items of solid colour."""
    for thing in objects:
        for method in methods:
            (folder / thing / method).mkdir(parents=True)
            for sample in range(samples):
                picture = Image.new("RGB", size, COLOURS[method])
                picture.save(folder / thing / method / f"{sample}.png")
    return folder


def make_film(path: pathlib.Path, codec: str = "libx264", frames: int = 3) -> None:
    """Writes a video of grey frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=15)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in np.linspace(0, 255, frames):
            picture = np.full((48, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def method_of(picture: bytes) -> str:
    """Whose picture this is."""
    with Image.open(io.BytesIO(picture)) as image:
        pixel = image.convert("RGB").getpixel((5, 5))
    return next(name for name, colour in COLOURS.items() if colour == pixel)


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def page(self) -> "Page":
        page = Page()
        page.feed(self.text)
        return page


class Page(html.parser.HTMLParser):
    """The parts of a page that a person uses."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}
        self.media: list[str] = []
        self.checked: dict[str, str] = {}
        self.fields: list[str] = []
        self.links: list[str] = []
        self.action = ""

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = found["action"]
        elif tag in ("img", "video"):
            self.media.append(found["src"])
        elif tag == "a":
            self.links.append(found["href"])
        elif tag == "input" and found["type"] == "hidden":
            self.hidden[found["name"]] = found["value"]
        elif tag == "input":
            if found["name"] not in self.fields:
                self.fields.append(found["name"])
            if "checked" in found:
                self.checked[found["name"]] = found["value"]


class Rater:
    """One browser with one cookie, on one connection that stays open."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.host, self.root = parts.netloc, parts.path
        self.connection = http.client.HTTPConnection(self.host, timeout=60)
        self.cookie = ""
        self.known: dict[str, str] = {}

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; a path without a slash in front is below the study's address."""
        path = path if path.startswith("/") else self.root + path
        given = dict(headers or {})
        if self.cookie:
            given.setdefault("Cookie", self.cookie)
        self.connection.request(method, path, body, given)
        response = self.connection.getresponse()
        reply = Reply(response.status, dict(response.getheaders()), response.read())
        for name, value in response.getheaders():
            if name.lower() == "set-cookie":
                self.cookie = value.split(";")[0]
        return reply

    def get(self, path: str = "", **headers: str) -> Reply:
        return self.send("GET", path, headers=headers)

    def follow(self, reply: Reply) -> Reply:
        """Goes where the answer points."""
        while reply.status == 303:
            reply = self.get(reply.headers["location"])
        return reply

    def post(
        self, path: str, fields: Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Sends a form."""
        kind = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self.send("POST", path, urlencode(fields).encode(), kind)

    def begin(self) -> Reply:
        """Comes to the first trial."""
        page = self.get().page
        return self.follow(self.post(page.action, page.hidden))

    def methods(self, page: Page) -> list[str]:
        """Whose pictures a page shows, from left to right; known by their colour alone."""
        for address in page.media:
            if address not in self.known:
                self.known[address] = method_of(self.get(address).body)
        return [self.known[address] for address in page.media]

    def fill(self, page: Page, values: Mapping[str, int]) -> dict[str, object]:
        """A form with a value for every method."""
        entered = {
            field: values[method]
            for field, method in zip(page.fields, self.methods(page), strict=True)
        }
        return {**page.hidden, **entered}

    def answer(self, reply: Reply, values: Mapping[str, int]) -> Reply:
        """Fills in a trial, sends it, and sees the next page."""
        page = reply.page
        return self.follow(self.post(page.action, self.fill(page, values)))

    def finish(self, reply: Reply) -> Reply:
        page = reply.page
        return self.follow(self.post(page.action, page.hidden))

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def serving(
    items: pathlib.Path, out: pathlib.Path, *words: str, stop: int = signal.SIGINT
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The study as its command line serves it, in a process of its own; gives its address."""
    repository = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "experiments.user_study", "serve", "--items", str(items)]
    running = subprocess.Popen(
        [*command, "--out", str(out), "--port", "0", *words],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert running.stdout is not None
    try:
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line.startswith("http://"):
                break
        else:
            raise AssertionError(f"the server ended: {''.join(lines)}")
        yield line.strip(), running
    finally:
        if running.poll() is None:
            running.send_signal(stop)
        try:
            running.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
