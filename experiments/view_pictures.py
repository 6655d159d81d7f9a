"""Takes pictures of the viewer's views in a real browser, for the documentation.

    python -m experiments.view_pictures                             # grasps, robot, a mesh
    python -m experiments.view_pictures --selected runs/select --motions MOTIONS.npz
        --recording RECORDING --object mug                          # and what these hold

Needs the extra `view`, playwright, and Chromium on the machine; writes `grasps.png`, `robot.png`
and so on, where the next `make docs` finds them.
Takes two to ten minutes on 2 cores: a browser without a graphics card draws slowly.
"""

import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trimesh
from rich.console import Console

from experiments import commands, view, watched
from experiments.view import View
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import results
from sim import objects
from viewer.tableau import ViewError

if TYPE_CHECKING:
    from viewer.app import App

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
_LOOK_S = 2.0
"""Seconds between two looks at a picture that is being drawn; a processor takes about one."""
_LOOKS = 15
"""Most looks, for what moves never settles."""


@dataclasses.dataclass(frozen=True)
class ViewPictures:
    """Command line of this script."""

    out: Path = Path("docs/api/pictures")
    """Folder of the pictures."""
    selected: Path | None = None
    """What `experiments.select` wrote, instead of RealDex-Sim's grasps."""
    motions: Path | None = None
    """A file of motions."""
    recording: Path | None = None
    """A recording."""
    object: str = "mug"
    """The object of all of these."""
    width: int = 1200
    """Columns of a picture."""
    height: int = 760
    """Rows."""
    patience: float = 300.0
    """Seconds after which a view that does not come is given up."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(ViewPictures, __doc__)
    console = Console()
    with commands.ending(console):
        take(config, console)


def take(config: ViewPictures, console: Console) -> list[Path]:
    """Takes the pictures; returns their files.

    Raises:
        ConfigError: There is no browser, or a view does not come.
        RealdexError: Data that cannot be shown.
    """
    commands.make_folder(config.out)
    files = []
    with _browser() as browser:
        for name, shown, act in _wanted(config):
            with console.status(name), _serving(shown) as app:
                page = browser.new_page(viewport={"width": config.width, "height": config.height})
                page.set_default_timeout(1000.0 * config.patience)
                page.goto(app.address)
                page.wait_for_selector("canvas")
                # The page says that there is no graphics card, over the picture.
                style = ".mantine-Notification-root {display: none !important}"
                page.add_style_tag(content=style)
                act(page)
                results.write_whole(config.out / f"{name}.png", _settled(page))
                files.append(config.out / f"{name}.png")
                page.close()
            console.print(str(files[-1]), highlight=False)
    return files


def _settled(page: Any) -> bytes:
    """A picture once its lights are there and nothing changes any more."""
    page.wait_for_selector("canvas[style*='opacity: 1']")
    before = page.screenshot()
    for _ in range(_LOOKS):
        time.sleep(_LOOK_S)
        seen = page.screenshot()
        if seen == before:
            break
        before = seen
    return before


_Act = Callable[[Any], None]


def _wanted(config: ViewPictures) -> Iterator[tuple[str, View, _Act]]:
    """Each picture: its name, what is shown, and what is done before it is taken."""
    still = dataclasses.replace(View(), upload=False, object=config.object)
    shown = "realdex-sim" if config.selected is None else str(config.selected)
    yield "grasps", dataclasses.replace(still, path=shown), _until("text=contact value")
    if config.motions is not None:
        moving = dataclasses.replace(still, path=str(config.motions))
        yield "motions", moving, _in_the_middle
    if config.recording is not None:
        yield (
            "recording",
            dataclasses.replace(still, path=str(config.recording)),
            _until("text=/\\d+ points/"),
        )
    robot = dataclasses.replace(still, robot=watched.VIRTUAL)
    yield "robot", robot, _reaching
    yield "mesh", View(), _sent


def _until(selector: str) -> _Act:
    def wait(page: Any) -> None:
        page.wait_for_selector(selector)

    return wait


def _in_the_middle(page: Any) -> None:
    frame = page.get_by_role("slider").nth(1)
    frame.press("End")
    for _ in range(12):
        frame.press("ArrowLeft")


def _reaching(page: Any) -> None:
    page.get_by_role("button", name="Robot", exact=True).click()
    page.get_by_role("button", name=watched.REACH.capitalize()).click()
    page.wait_for_selector("text=/lifting|holding/")


def _sent(page: Any) -> None:
    """Sends a mug in millimetres and waits for its grasps."""
    mug = objects.make("mug")
    body = trimesh.Trimesh(1000.0 * mug.vertices, mug.faces).export(file_type="stl")
    page.get_by_role("button", name="Your mesh", exact=True).click()
    page.get_by_label("Unit").click()
    page.get_by_role("option", name="millimetres").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a mesh file").click()
    file = {"name": "my mug.stl", "mimeType": "model/stl", "buffer": body}
    chooser.value.set_files(file)
    page.wait_for_selector("text=selection")


@contextlib.contextmanager
def _serving(shown: View) -> "Iterator[App]":
    """An app that goes on in a thread."""
    from viewer.app import App

    panels, told = view.panels(shown, Console(quiet=True))
    over = threading.Event()
    with contextlib.closing(App(told, panels, port=0)) as app:
        thread = threading.Thread(target=app.run, args=[over], name="ticks", daemon=True)
        thread.start()
        try:
            yield app
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def _browser() -> Iterator[Any]:
    """A headless Chromium of the system; none is downloaded."""
    try:
        from playwright import sync_api
    except ModuleNotFoundError as error:
        raise ViewError("pictures need playwright: pip install playwright") from error
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise ConfigError(f"no browser: none of {', '.join(BROWSERS)} is installed")
    try:
        with sync_api.sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=path, args=[*_FLAGS])
            with contextlib.closing(started):
                yield started
    except sync_api.Error as error:
        raise ViewError(f"the browser says: {error.message.splitlines()[0]}") from error


if __name__ == "__main__":
    main()
