"""The other views in a real browser: a mesh that is sent, a robot that moves, a recording."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import trimesh

from realdex_jax.data import schema, store
from realdex_jax.errors import MeshError
from realdex_jax.hand import joints, load
from sim import objects
from viewer import tableau
from viewer.tableau import Exhibit, Thing

pytest.importorskip("viser", reason="the extra `view` is not installed")
from visitor import PATIENCE, share

from viewer import footage
from viewer.app import App
from viewer.footage import Footage, Shot
from viewer.live import Live, Stance
from viewer.panel import Panel
from viewer.uploads import Uploads

pytestmark = pytest.mark.slow
COUNT = 5


class Arm:
    """A robot that stands where a test puts it."""

    name, thing, actions = "test <b>robot</b>", None, ("wave",)

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = False
        self.stand(0.0)

    def stand(self, pan: float, age_s: float = 0.0) -> None:
        q = np.array([pan, -2.0, -1.6, -1.2, -1.1, -3.1])
        phi = np.concatenate([joints.REST, [-0.3, 0.1 + pan, 0.5], [0, 0.8, 0]])
        self.now = Stance(q, phi, time.monotonic() - age_s)

    def stance(self) -> Stance:
        return self.now

    def words(self) -> str:
        return f"asked {len(self.asked)} times"

    def act(self, action: str) -> None:
        self.asked.append(action)

    def close(self) -> None:
        self.closed = True


def box_thing() -> Thing:
    mesh = trimesh.creation.box((0.1, 0.1, 0.1))
    return tableau.make_thing("box", mesh.vertices, mesh.faces)


class Blocks:
    """A recording of a red block that rises, whose third moment cannot be read."""

    title, count, rate = "blocks", COUNT, 15.0
    p_world_middle = np.array([0.0, 0.0, 0.1])
    eyes = {  # noqa: RUF012
        c: footage.eye(np.array([0.0, 1.0, 0.0, 0.0, 0.3 * c, 0.0, 0.8]), 160, 90, 120.0)
        for c in range(2)
    }

    def __init__(self) -> None:
        self.thing = box_thing()
        grid = np.linspace(-0.15, 0.15, 60)
        self.plane = np.stack(np.meshgrid(grid, grid, [0.0]), axis=-1).reshape(-1, 3)

    def shot(self, k: int) -> Shot:
        if k == 2:
            raise MeshError("the third <i>moment</i> is damaged")
        z = 0.05 + 0.05 * k
        colour = np.tile(np.uint8([225, 30, 30]), (len(self.plane), 1))
        picture = np.full((90, 160, 3), 40 * k, np.uint8)
        placed = None if k == 0 else np.array([1.0, 0, 0, 0, 0, 0, z])
        p = self.plane + np.array([0.0, 0.0, z + 0.06])
        return Shot(p, colour, {0: picture, 1: picture}, placed, f"score {k}")


def jar(name: str, content: bytes, scale: float, tell: Callable[[str, float], None]) -> Exhibit:
    tell("thinking of <b>grasps</b>", 0.5)
    time.sleep(0.3)
    if b"bad" in content:
        raise MeshError(f"{name}: not a mesh, scale {scale}")
    shape = objects.make("cosmetics")
    grasps = schema.take(store.open_dataset("realdex-sim").grasps("cosmetics"), slice(2))
    thing = tableau.make_thing(name.partition(".")[0], shape.vertices, shape.faces)
    return Exhibit(thing, grasps=grasps, notes=("first choice", "second choice"))


@pytest.fixture
def opened(ticking) -> Iterator[Callable[[Sequence[Panel]], App]]:
    with contextlib.ExitStack() as stack:

        def open_app(panels: Sequence[Panel]) -> App:
            app = stack.enter_context(contextlib.closing(App("test", panels, port=0)))
            stack.enter_context(ticking(app))
            return app

        yield open_app


def test_a_robot_is_followed(opened, visit) -> None:
    arm = Arm()
    one = visit(opened([Live(load.load(), arm)]))
    first = one.until(lambda p: share(p, "hand") > 0.005)
    arm.stand(0.6)
    one.until(lambda p: (np.abs(p - first) > 24).any(-1).mean() > 0.02)
    one.page.wait_for_selector("text=34.4")  # degrees of the joint that turned
    one.page.wait_for_selector("text=test <b>robot</b>")  # shown as it is
    one.page.get_by_role("button", name="Wave").click()
    one.page.wait_for_selector("text=asked 1 times")
    assert arm.asked == ["wave"]
    arm.stand(0.6, age_s=5.0)
    one.page.wait_for_selector("text=/silent for \\d+ s/")


def test_a_recording_is_scrubbed(opened, visit) -> None:
    shown = Footage(Blocks())
    one = visit(opened([shown]))

    def red(p: np.ndarray) -> float:
        r, g, b = np.moveaxis(p, -1, 0)
        return float(((r > 150) & (g < 110) & (b < 110)).mean())

    one.page.wait_for_selector("text=moment 0 of 5")
    first = one.until(lambda p: red(p) > 0.01)
    assert share(first, "object") < 2e-3  # nobody knows where it is
    one.slide(0, "End")
    one.page.wait_for_selector("text=score 4")
    last = one.until(lambda p: share(p, "object") > 0.004)
    rows = [np.flatnonzero((p[..., 0] > p[..., 1] + 100).any(axis=1)).min() for p in (first, last)]
    assert rows[1] < rows[0]  # it has risen
    one.press("Points")
    one.until(lambda p: red(p) < 1e-3)
    for _ in range(2):
        one.slide(0, "ArrowLeft")
    one.page.wait_for_selector("text=the third <i>moment</i> is damaged")
    one.page.get_by_role("button", name="Play").click()
    one.page.wait_for_selector("text=Pause")
    assert one.page.locator("img").count() >= 1


def test_a_mesh_becomes_grasps_and_what_is_none_is_refused(
    opened, visit, tmp_path: pathlib.Path
) -> None:
    arm, panel = Arm(), Uploads(load.load(), jar, (".stl", ".obj"), 5000)
    app = opened([Live(load.load(), arm), panel])
    one = visit(app)
    one.page.get_by_role("button", name="Your mesh", exact=True).click()
    one.page.wait_for_selector("text=Choose a mesh file")
    one.until(lambda p: share(p, "hand") < 1e-3)  # the robot is gone

    boxes = one.page.get_by_role("combobox")

    def send(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with one.page.expect_file_chooser() as chooser:
            one.page.get_by_role("button", name="Choose a mesh file").click()
        chooser.value.set_files(str(tmp_path / name))

    send("my jar.stl", b"solid")
    one.page.wait_for_selector("text=thinking of <b>grasps</b>")
    one.page.wait_for_selector("text=first choice")
    one.until(lambda p: share(p, "hand") > 0.02 and share(p, "touched") > 2e-4)
    send("large.stl", b"0" * 5001)
    one.page.wait_for_selector("text=5001 bytes; a file has 1 to 5000")
    send("bad.obj", b"bad")
    one.page.wait_for_selector("text=not a mesh, scale 1.0")
    send("notes.txt", b"text")
    one.page.wait_for_selector("text=is none of .stl .obj")
    send("my jar.stl", b"solid")
    one.until(lambda _: "my jar (2)" in [c.input_value() for c in boxes.all()])
    one.page.get_by_role("button", name="Robot", exact=True).click()
    one.page.wait_for_selector("text=asked 0 times")


def test_names_of_files_open_nothing(opened) -> None:
    came: list[str] = []

    def make(name: str, content: bytes, scale: float, tell: object) -> Exhibit:
        came.append(name)
        raise MeshError("no")

    panel = Uploads(load.load(), make, (".stl",), 5000)
    opened([panel])
    panel.begin("../../etc/x.stl", b"a", 1.0)
    deadline = time.monotonic() + PATIENCE
    while not came:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert came == ["x.stl"]
