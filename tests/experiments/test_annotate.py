"""The annotator's command line on a small recording, and its page in a real browser."""

import threading
import time

import browser
import numpy as np
import object_views
import pytest
from object_views import LENS, PLACES, away, pose, standing
from rich.console import Console

from capture import annotation
from capture.device import CaptureError
from experiments import annotate
from experiments.annotate import Annotate
from realdex_jax.data import realdex_raw, realdex_write, rigid
from realdex_jax.data.calibration import Calibration
from realdex_jax.data.realdex_write import Picture, Scene
from realdex_jax.errors import ConfigError

COUNT = 5
NAME = "penguin_toy"
NEAR_MM = 2.0
"""Pixels are 5 mm apart, depth is in whole millimetres."""


def track() -> np.ndarray:
    found = np.repeat(standing()[None], COUNT, axis=0)
    found[:, 6] += 0.012 * np.arange(COUNT)
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A toy that rises from a table, and no robot."""
    folder = tmp_path_factory.mktemp("data") / f"{NAME}_1"
    from_cam0 = rigid.inverse(PLACES[0])
    places = {c: rigid.compose(from_cam0, PLACES[c]) for c in range(4)}
    realdex_write.write_calibration(
        folder.parent, Calibration(tuple(range(4)), dict.fromkeys(range(4), LENS), places)
    )
    shown = [object_views.depths(T, table=True) for T in track()]

    def take(camera: int, k: int) -> Picture:
        depth = realdex_write.millimetres(shown[k][camera])
        return Picture(np.zeros((*depth.shape, 3), np.uint8), depth)

    scene = Scene(np.arange(COUNT) * 66_666_667 + 1, {}, None, PLACES[0])
    realdex_write.write_recording(folder, scene, range(4), take)
    return folder


@pytest.fixture
def folder(recorded):
    yield recorded
    for path in (recorded / "tracking_result").glob("*"):
        path.unlink()


def run(args: Annotate) -> tuple[annotation.Annotation, str]:
    console = Console(record=True, width=200, force_terminal=False)
    return annotate.run(args, console), console.export_text()


def as_row(wxyz_xyz) -> tuple[float, ...]:
    return tuple(rigid.to_ros(np.asarray(wxyz_xyz)[None])[0].tolist())


def test_a_told_first_pose_is_followed_and_an_interrupted_run_goes_on(folder) -> None:
    args = Annotate(folder, browser=False, pose=as_row(track()[0]))
    found, said = run(args)
    assert f"{COUNT} frames, 1 set by hand, 0 flagged" in said
    poses, tracked = realdex_raw.Recording(folder).object_track()
    assert tracked.all()
    for k in range(COUNT):
        assert away(poses[k], track()[k])[0] < NEAR_MM
    # As if it had been stopped after two frames.
    cut = annotation.empty(COUNT)
    for name in ("wxyz_xyz_world_object", "score", "origin", "lost"):
        getattr(cut, name)[:2] = getattr(found, name)[:2]
    annotation.save(folder, cut, NAME)
    again, _ = run(Annotate(folder, browser=False))
    assert again.flagged().tolist() == []
    assert away(again.wxyz_xyz_world_object[-1], track()[-1])[0] < NEAR_MM


def test_what_cannot_be_is_refused(folder, tmp_path) -> None:
    for args, error, message in (
        (Annotate(tmp_path), CaptureError, "no recording in RealDex's layout.*to-realdex"),
        (Annotate(folder, first=9), ConfigError, "--first 9; frames are 0 to 4"),
        (
            Annotate(folder, browser=False, pose=(0, 0, 0, 0, 0, 0, 2)),
            ConfigError,
            "of length 2; it must be 1",
        ),
    ):
        with pytest.raises(error, match=message):
            run(args)
    other = folder.with_name("teapot_1")
    other.symlink_to(folder)
    with pytest.raises(ConfigError, match="no object 'teapot' in the catalogue; name the mesh"):
        run(Annotate(other, browser=False))
    other.unlink()


@pytest.mark.slow
def test_the_first_pose_is_proposed(folder) -> None:
    found, said = run(Annotate(folder, browser=False))
    assert "frame 0: proposed at" in said
    assert found.flagged().tolist() == []
    assert away(found.wxyz_xyz_world_object[0], track()[0])[0] < NEAR_MM
    assert away(found.wxyz_xyz_world_object[-1], track()[-1])[0] < NEAR_MM


@pytest.mark.slow
def test_a_person_corrects_the_first_pose_in_the_browser(folder) -> None:
    pytest.importorskip("viser", reason="the extra `view` is not installed")
    off = rigid.compose(track()[0], pose([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]))
    off[4] -= 0.05
    args = Annotate(folder, port=0, pose=as_row(off))
    console, result = Console(record=True, width=200), []
    worker = threading.Thread(target=lambda: result.append(annotate.run(args, console)))
    with browser.headless(
        "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"
    ) as chromium:
        worker.start()
        address = _address(console, worker)
        assert address.startswith("http://127.0.0.1:")
        page = chromium.new_page(viewport={"width": 900, "height": 700})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("canvas")
        page.add_style_tag(content=".mantine-Notification-root {display: none !important}")
        page.get_by_text("frame 0").first.wait_for()
        # 50 mm along x is what is missing.
        box = page.get_by_role("textbox").nth(1)  # after the frame's
        box.fill("50")
        box.press("Enter")
        page.get_by_role("button", name="Apply", exact=True).click()
        page.get_by_role("button", name="Accept", exact=True).click()
        page.get_by_text("none flagged").wait_for(timeout=120_000)
        page.get_by_role("button", name="Done", exact=True).click()
        worker.join(60.0)
        local = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
        assert all(url.startswith(local) for url in asked)
    (found,) = result
    assert found.origin[0] == annotation.BY_HAND
    for k in range(1, COUNT):
        assert away(found.wxyz_xyz_world_object[k], track()[k])[0] < NEAR_MM


def _address(console: Console, worker: threading.Thread) -> str:
    """Waits for the line with the page's address."""
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        lines = console.export_text(clear=False).splitlines()
        found = [line.strip() for line in lines if line.strip().startswith("http://")]
        if found:
            return found[0]
        assert worker.is_alive()
        time.sleep(0.2)
    raise AssertionError("the page was never announced")


def test_others_cannot_reach_the_page() -> None:
    pytest.importorskip("viser", reason="the extra `view` is not installed")
    from viewer.pose_editor import PoseEditor

    with pytest.raises(ConfigError, match=r"host 0\.0\.0\.0: whoever opens the page changes poses"):
        PoseEditor("x", np.zeros((3, 3)), np.array([[0, 1, 2]]), 2, host="0.0.0.0")
