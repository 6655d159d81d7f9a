"""Three people in a real browser."""

import json
import pathlib
import re
import time
from collections.abc import Iterator, Mapping

import browser
import pytest
import raters
from raters import COLOURS, make_film, make_items, method_of
from rich.console import Console

from experiments import user_study
from experiments.user_study import Count
from study import tally
from study.ballots import Ballots


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with browser.headless("--disable-gpu") as started:
        yield started


class Visitor:
    """One person at one browser, who knows methods by the colour of their pictures."""

    def __init__(self, browser, address: str, asked: list[str], said: list[str]) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.page = self.context.new_page()
        self.address = address
        self.page.on("request", lambda request: asked.append(request.url))
        self.page.on("console", lambda message: said.append(message.text))
        self.page.on("pageerror", lambda error: said.append(str(error)))
        self.page.goto(address)

    def begin(self) -> None:
        self.press(self.page.get_by_role("button", name="Begin or continue"))

    def groups(self) -> dict[str, str]:
        """Letter of every method on the page."""
        letters = {}
        for item in self.page.locator("fieldset").all():
            source = item.locator("img").get_attribute("src")
            picture = self.page.request.get(f"http://{self.address.split('/')[2]}{source}").body()
            letters[method_of(picture)] = item.locator("legend").inner_text()
        return letters

    def choose(self, values: Mapping[str, str]) -> None:
        for method, letter in self.groups().items():
            group = self.page.get_by_role("group", name=letter, exact=True)
            label = group.locator("label", has_text=values[method])
            label.click()
            assert label.locator("input").is_checked()

    def send(self) -> None:
        self.press(self.page.get_by_role("button", name="Store and"))

    def press(self, button) -> None:
        """Presses what leads to another page, and waits for it."""
        with self.page.expect_navigation():
            button.click()

    def where(self) -> str:
        return self.page.locator(".head p").inner_text()


class Crowd:
    """Visitors of one study."""

    def __init__(self, browser) -> None:
        self.browser = browser
        self.asked: list[str] = []
        self.said: list[str] = []
        self.visitors: list[Visitor] = []

    def come(self, address: str) -> Visitor:
        self.visitors.append(Visitor(self.browser, address, self.asked, self.said))
        return self.visitors[-1]


@pytest.fixture
def crowd(chromium) -> Iterator[Crowd]:
    """Makes visitors; pages must keep their own policy, and ask nobody else for anything."""
    found = Crowd(chromium)
    yield found
    for one in found.visitors:
        one.context.close()
    # A refused form (422) is logged by Chromium; what breaks the policy would be logged too.
    assert [line for line in found.said if "422" not in line] == []
    servers = {one.address.split("/s/")[0] for one in found.visitors}
    assert {url.split("/s/")[0] for url in found.asked} <= servers
    assert not any(map(told, found.asked))


def told(text: str) -> list[str]:
    """Names of methods, objects and files in a text; whole words, since addresses are random."""
    return re.findall(rf"\b(?:{'|'.join(COLOURS)}|bottle|mug)\b|\.(?:png|mp4)\b", text)


def means(store: Ballots) -> list[float]:
    return [row.mean for row in tally.count(store.design, store.everybody(), resamples=100).rows]


def test_three_people_rank(crowd: Crowd, tmp_path: pathlib.Path) -> None:
    """One reloads midway, one leaves midway; the table is right to the digit."""
    items = make_items(tmp_path / "items", size=(640, 480))
    with raters.serving(items, tmp_path / "out") as (address, _):
        assert address.startswith("http://127.0.0.1:")
        assert listens_at(int(address.split(":")[2].split("/")[0])) == {"0100007F"}
        steady, reloading, leaving = (crowd.come(address) for _ in range(3))
        for one in (steady, reloading, leaving):
            one.begin()
        for number in range(1, 5):
            assert steady.where() == f"{number} of 4"
            steady.choose({"alpha": "1st", "beta": "2nd", "gamma": "3rd"})
            steady.send()
        assert steady.page.get_by_role("heading", name="All 4 answered").is_visible()
        steady.press(steady.page.get_by_role("button", name="Finish"))
        assert steady.page.get_by_role("heading", name="Thank you").is_visible()

        for number in range(1, 5):
            assert reloading.where() == f"{number} of 4"
            reloading.choose({"alpha": "2nd", "beta": "1st", "gamma": "3rd"})
            if number == 3:
                before = reloading.groups()
                reloading.page.reload()
                assert reloading.where() == "3 of 4"
                assert reloading.groups() == before
                reloading.page.goto(address)
                assert reloading.where() == "3 of 4"
                reloading.choose({"alpha": "2nd", "beta": "1st", "gamma": "3rd"})
            reloading.send()
            reloading.page.reload()  # what was sent is not sent again
        reloading.press(reloading.page.get_by_role("button", name="Finish"))

        for _ in range(2):
            leaving.choose({"alpha": "2nd", "beta": "3rd", "gamma": "1st"})
            leaving.send()
        assert leaving.where() == "3 of 4"
        text = "".join(one.page.content() for one in (steady, reloading, leaving))
        assert told(text) == []
    user_study.count(Count(out=tmp_path / "out", resamples=200), "test", Console(quiet=True))
    found = json.loads((tmp_path / "out" / "table.json").read_text())
    # Of 10 votes: (4·3 + 4·2 + 2·2) / 10, (4·2 + 4·3 + 2·1) / 10, (4·1 + 4·1 + 2·3) / 10.
    assert [(r["method"], r["mean"], r["votes"]) for r in found["rows"]] == [
        ("alpha", 2.4, 10),
        ("beta", 2.2, 10),
        ("gamma", 1.4, 10),
    ]
    assert (found["raters"], found["complete"], found["only_opened"]) == (3, 2, 0)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| alpha | **2.40** |" in table
    assert "1 of 3 raters have not answered every trial (yet)" in table
    assert len((tmp_path / "out" / "votes.csv").read_text().splitlines()) == 1 + 3 * 10


def listens_at(port: int) -> set[str]:
    """Addresses that a port of this machine is listened at, as the kernel writes them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A" and int(local.split(":")[1], 16) == port:
                found.add(local.split(":")[0])
    return found


def test_a_tie_and_a_way_back(crowd: Crowd, serving) -> None:
    address, store = serving()
    one = crowd.come(address)
    one.begin()
    one.choose({"alpha": "1st", "beta": "1st", "gamma": "2nd"})
    one.send()
    assert "two pictures have the same place" in one.page.get_by_role("alert").inner_text()
    assert one.page.locator("input:checked").count() == 3
    assert one.where() == "1 of 4"
    one.choose({"alpha": "1st", "beta": "3rd", "gamma": "2nd"})
    one.send()
    assert one.where() == "2 of 4"
    one.press(one.page.get_by_role("link", name="Back"))
    assert one.where() == "1 of 4"
    one.choose({"alpha": "3rd", "beta": "1st", "gamma": "2nd"})
    one.send()
    assert one.where() == "2 of 4"
    one.page.go_back()
    one.page.go_forward()
    assert one.where() == "2 of 4"
    assert means(store) == [1.0, 3.0, 2.0]


def test_scores_by_keyboard_alone_and_on_a_phone(crowd: Crowd, serving) -> None:
    address, store = serving("score", objects=("mug",), samples=1, size=(640, 480))
    one = crowd.come(address)
    one.page.set_viewport_size({"width": 390, "height": 800})
    one.page.keyboard.press("Tab")
    one.page.keyboard.press("Enter")
    one.page.wait_for_selector("fieldset")
    wanted = {"alpha": 5, "beta": 2, "gamma": 0}
    order = list(one.groups())
    boxes = [item.bounding_box() for item in one.page.locator("fieldset").all()]
    assert len({box["x"] for box in boxes}) == 1  # one below the other
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
    one.page.set_viewport_size({"width": 1280, "height": 800})
    boxes = [item.bounding_box() for item in one.page.locator("fieldset").all()]
    assert len({box["y"] for box in boxes}) == 1  # side by side
    for method in order:
        one.page.keyboard.press("Tab")
        one.page.keyboard.press("Space")
        for _ in range(wanted[method]):
            one.page.keyboard.press("ArrowRight")
    one.page.keyboard.press("Tab")
    one.page.keyboard.press("Enter")
    one.page.wait_for_selector("text=All 1 answered")
    assert means(store) == [5.0, 2.0, 0.0]


def test_videos_play_side_by_side(crowd: Crowd, serving, tmp_path: pathlib.Path) -> None:
    for method in ("alpha", "beta"):
        (tmp_path / "films" / "mug" / method).mkdir(parents=True)
        make_film(tmp_path / "films" / "mug" / method / "0.mp4", frames=60)
    address, _ = serving(items=tmp_path / "films")
    one = crowd.come(address)
    one.begin()
    videos = one.page.locator("video")
    assert videos.count() == 2
    for index in range(2):
        deadline = time.monotonic() + 10
        while videos.nth(index).evaluate("v => v.currentTime") == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert videos.nth(index).evaluate("v => [v.videoWidth, v.muted, v.controls]") == [
            64,
            True,
            True,
        ]
