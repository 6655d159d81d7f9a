"""Grasps and motions in a real browser, and the files they leave."""

import contextlib
import dataclasses
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import schema, store
from realdex_jax.data.motion import RATE, Motion
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.hand import joints, load
from sim import objects
from viewer import tableau
from viewer.tableau import Collection, Exhibit, ViewError

pytest.importorskip("viser", reason="the extra `view` is not installed")
from visitor import PATIENCE, Visitor, share

from viewer import export
from viewer.app import App
from viewer.gallery import Gallery
from viewer.words import plain

FRAMES = 12


def grasps_of(name: str, count: int = 5) -> Exhibit:
    shape = objects.make(name)
    dataset = store.open_dataset("realdex-sim")
    thing = tableau.make_thing(name, shape.vertices, shape.faces, dataset.surface(name))
    return Exhibit(thing, grasps=schema.take(dataset.grasps(name), slice(0, count)))


def motion_of(name: str) -> Exhibit:
    """A hand comes from the side and rises with the object."""
    shape = objects.make(name)
    phi = np.zeros((FRAMES, 28), np.float32)
    phi[:, :22] = joints.REST
    R_world_palm = Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    step = np.arange(FRAMES) / (FRAMES - 1)
    rise = 0.2 * np.clip(2.0 * step - 1.0, 0.0, 1.0)
    phi[:, 22:25] = -R_world_palm.apply([0.0, -0.05, 0.085])
    phi[:, 22] -= 0.2 * np.clip(1.0 - 2.0 * step, 0.0, 1.0)
    phi[:, 24] += rise - shape.bounds[0, 2]
    phi[:, 25:] = R_world_palm.as_rotvec()
    world = np.zeros((FRAMES, 7), np.float32)
    world[:, 0] = 1.0
    world[:, 6] = rise - shape.bounds[0, 2]
    motion = Motion(np.arange(FRAMES, dtype=np.float32) / np.float32(RATE), phi, world)
    thing = tableau.make_thing(name, shape.vertices, shape.faces)
    return Exhibit(thing, motions=(motion, dataclasses.replace(motion, phi=phi[::-1].copy())))


STILL = Collection("two objects", ("body_lotion", "mug"), grasps_of)
MOVING = Collection("a motion", ("body_lotion",), motion_of, moving=True)


def app_of(collection: Collection, first: str | None = None, port: int = 0) -> App:
    gallery = Gallery(load.load(), collection, first)
    return App(collection.title, [gallery], port=port)


@pytest.fixture
def serving() -> Iterator[Callable[[Collection], App]]:
    with contextlib.ExitStack() as stack:

        def serve(collection: Collection) -> App:
            return stack.enter_context(contextlib.closing(app_of(collection)))

        yield serve


@pytest.mark.slow
def test_a_grasp_is_seen_and_changes_when_the_slider_moves(serving, visit) -> None:
    shown = serving(STILL)
    one = visit(shown)
    first = one.until(lambda p: share(p, "touched") > 1e-4 and share(p, "hand") > 0.04)
    assert share(first, "far") > 0.02
    one.slide(0, "ArrowRight")
    moved = one.until(lambda p: (np.abs(p - first) > 24).any(-1).mean() > 0.02)
    assert share(moved, "hand") > 0.02
    one.page.wait_for_selector("text=grasp 1")


@pytest.mark.slow
def test_parts_are_shown_and_hidden(serving, visit) -> None:
    shown = serving(STILL)
    one = visit(shown)
    one.until(lambda p: share(p, "far") > 0.02 and share(p, "hand") > 0.04)
    one.press("Contact map")
    one.until(lambda p: share(p, "far") < 1e-3 and share(p, "touched") < 1e-4)
    one.press("Cloud")
    bare = one.until(lambda p: share(p, "object") > 0.05)
    before = one.settled()
    one.page.get_by_label("Posture", exact=True).click()
    one.page.get_by_role("option", name="pre-grasp", exact=True).click()
    one.until(lambda p: (np.abs(p - before) > 24).any(-1).mean() > 2e-3)
    one.press("Hand")
    one.until(lambda p: share(p, "hand") < 1e-3 and share(p, "object") > share(bare, "object"))
    one.press("Hand")
    one.page.get_by_role("checkbox", name="Object", exact=True).click()
    one.until(lambda p: share(p, "object") < 1e-3 and share(p, "hand") > 0.02)


@pytest.mark.slow
def test_browsing(serving, visit) -> None:
    shown = serving(STILL)
    one = visit(shown)
    one.page.wait_for_selector("text=grasp 0")
    one.page.get_by_role("button", name="previous", exact=True).click()
    one.page.wait_for_selector("text=grasp 4")  # round the corner
    one.page.get_by_role("button", name="next", exact=True).click()
    one.page.wait_for_selector("text=grasp 0")
    depth = grasps_of("body_lotion").grasps.columns["depth_mm"]
    one.page.get_by_label("Sort by", exact=True).click()
    one.page.get_by_role("option", name="depth_mm", exact=True).click()
    one.page.wait_for_selector(f"text=grasp {int(np.argmin(depth))}")
    one.press("Highest first")
    one.page.wait_for_selector(f"text=grasp {int(np.argmax(depth))}")
    before = one.settled()
    one.page.get_by_role("combobox").first.click()
    one.page.get_by_role("option", name="mug", exact=True).click()
    one.until(lambda p: (np.abs(p - before) > 24).any(-1).mean() > 0.05)
    one.page.get_by_role("button", name="Centre the view").click()
    one.until(lambda p: share(p, "hand") > 0.03)


@pytest.mark.slow
def test_a_motion_is_scrubbed_and_played(serving, visit) -> None:
    shown = serving(MOVING)
    one = visit(shown)
    start = one.until(lambda p: share(p, "far") > 2e-3 and share(p, "hand") > 0.02)
    one.slide(1, "End")
    one.page.wait_for_selector(f"text=frame {FRAMES - 1} of {FRAMES}")
    end = one.until(lambda p: (np.abs(p - start) > 24).any(-1).mean() > 0.03)
    assert share(end, "touched") > share(start, "touched")
    rows = [np.flatnonzero(share_rows(p)).max() for p in (start, end)]
    assert rows[1] < rows[0] - 20  # the object has risen: its lowest pixel is higher
    one.slide(1, "Home")
    one.page.wait_for_selector(f"text=frame 0 of {FRAMES}")
    one.page.get_by_role("button", name="Play").click()
    one.page.wait_for_selector("text=Pause")
    shown.tick(100.0)
    shown.tick(100.0 + 3.5 / RATE)
    one.page.wait_for_selector(f"text=frame 3 of {FRAMES}")
    shown.tick(100.0 + 3.5 / RATE + 60.0)  # to the end, where it stays for a while ...
    one.page.wait_for_selector(f"text=frame {FRAMES - 1} of {FRAMES}")
    shown.tick(200.0)  # ... and then begins again
    one.page.wait_for_selector(f"text=frame 0 of {FRAMES}")
    one.page.get_by_role("button", name="Pause").click()
    one.page.wait_for_selector("text=Play")
    shown.tick(300.0)
    shown.tick(301.0)
    one.page.wait_for_selector(f"text=frame 0 of {FRAMES}")


def share_rows(picture: np.ndarray) -> np.ndarray:
    """Rows with a pixel of the cloud or of the object."""
    r, g, b = np.moveaxis(picture, -1, 0)
    return (((r > g + 15) & (g > b + 25)) | (b > r + 90)).sum(axis=1) > 3


@pytest.mark.slow
def test_a_page_of_its_own_shows_the_same(chromium, tmp_path: pathlib.Path) -> None:
    path = export.save(tmp_path / "new" / "lotion.html", load.load(), grasps_of("body_lotion"), [1])
    assert [p.name for p in path.parent.iterdir()] == ["lotion.html"]
    assert path.stat().st_size < 5e6
    one = Visitor(chromium, path.as_uri())
    one.until(lambda p: share(p, "touched") > 5e-4 and share(p, "hand") > 0.02)
    assert {url for url in one.asked if not url.startswith(("data:", "blob:"))} == {path.as_uri()}
    one.page.close()


def test_a_motion_is_saved_with_all_its_frames(tmp_path: pathlib.Path) -> None:
    import msgspec
    import zstandard

    path = export.save(tmp_path / "lift.viser", load.load(), motion_of("body_lotion"))
    content = path.read_bytes()  # its size, then all of it compressed: a length, a message, arrays
    inner = zstandard.ZstdDecompressor().decompressobj().decompress(content[8:])
    found = msgspec.msgpack.decode(inner[8 : 8 + int.from_bytes(inner[:8], "little")])
    assert found["durationSeconds"] == pytest.approx((FRAMES - 1) / RATE + 1.0 + 1 / 30, abs=1e-4)
    times = {round(at * RATE) for at, _ in found["messages"]}
    assert set(range(FRAMES)) <= times
    begins, ends = (
        [tuple(m["position"]) for at, m in found["messages"] if of_palm(m) and at * RATE < 0.5],
        [tuple(m["position"]) for at, m in found["messages"] if of_palm(m)],
    )
    assert begins[-1] == ends[-1] != ends[-2]  # the player begins again without going back


def of_palm(message: dict) -> bool:
    return message["type"] == "SetPositionMessage" and message["name"] == "/shown/hand/palm"


def test_mistakes_are_named(tmp_path: pathlib.Path) -> None:
    hand, lotion = load.load(), grasps_of("body_lotion")
    with pytest.raises(ConfigError, match=r"scene is written as .html or .viser"):
        export.save(tmp_path / "scene.png", hand, lotion)
    with pytest.raises(ViewError, match="no number 5 for body_lotion; there are 5"):
        export.save(tmp_path / "scene.html", hand, lotion, [5])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        export.save(tmp_path / "file" / "scene.viser", hand, lotion)
    with pytest.raises(ViewError, match="no object 'bowl' in two objects; known: body_lotion, mug"):
        app_of(STILL, "bowl")
    with pytest.raises(ConfigError, match="port 70000"):
        app_of(STILL, port=70000)
    nothing = dataclasses.replace(STILL, open=lambda name: grasps_of(name, 0))
    with pytest.raises(ViewError, match="body_lotion: no grasp and no motion"):
        app_of(nothing)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_port_in_use_is_refused_and_not_passed_by() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1, port {port}"):
            app_of(STILL, port=port)


def test_an_exhibit_that_cannot_be_read_leaves_the_old_one(serving) -> None:
    def read(name: str) -> Exhibit:
        if name == "mug":
            raise DatasetError("mug.npz is damaged")
        return grasps_of(name)

    shown = serving(dataclasses.replace(STILL, open=read))
    shown.shown._name.value = "mug"
    deadline = time.monotonic() + PATIENCE
    while plain("mug.npz is damaged") not in shown.shown._words.content:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert shown.shown._exhibit.thing.name == "body_lotion"


def test_it_listens_at_this_machine_only_prints_nothing_and_cannot_be_shared(
    serving, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(threading.enumerate())
    shown = serving(STILL)
    port = int(shown.address.partition("/?")[0].rpartition(":")[2])
    table = pathlib.Path("/proc/net/tcp")
    if table.is_file():
        lines = [line.split() for line in table.read_text().splitlines()[1:]]
        mine = {f[1] for f in lines if f[3] == "0A" and int(f[1].split(":")[1], 16) == port}
        assert {address.split(":")[0] for address in mine} == {"0100007F"}
    assert shown._server.request_share_url() is None
    shown.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    loops = [t for t in set(threading.enumerate()) - before if "ThreadPool" not in t.name]
    assert loops == []
    assert capsys.readouterr().out == ""
