"""Grasps and motions inside a notebook: a picture, and beneath it a scene to turn and zoom.

The picture is an output of its own, so it is also seen where scripts are not run: on code hosts, in
diffs, in print. The scene carries all it needs and asks no server.
"""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np

from realdex_jax.data.motion import Motion
from realdex_jax.data.object_files import Surface
from realdex_jax.data.schema import GraspSet
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from sim import render, video
from viewer import export, tableau
from viewer.tableau import Exhibit, ViewError

_HEIGHT = 420
"""Of the frame of a scene, pixels."""
_COLUMNS = 4
"""Pictures in a row."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """What a notebook shows for the last expression of a cell."""

    picture: bytes
    """PNG."""
    page: bytes
    """HTML that needs nothing else."""

    def frame(self) -> str:
        """The page within another one; nothing runs before it is scrolled to."""
        return (
            f'<iframe srcdoc="{html.escape(self.page.decode())}" loading="lazy" '
            f'style="width: 100%; height: {_HEIGHT}px; border: 1px solid #ddd"></iframe>'
        )

    def _ipython_display_(self) -> None:
        """Called by IPython, so that is there: two outputs, for of one only the richer is shown."""
        from IPython.display import display

        display({"image/png": self.picture}, raw=True)
        display({"text/html": self.frame(), "text/plain": "(a scene to turn)"}, raw=True)


def grasps(
    hand: HandModel,
    shape: ObjectShape,
    shown: GraspSet,
    indices: Sequence[int] = range(4),
    size: tuple[int, int] = (320, 240),
    cloud: Surface | None = None,
) -> Scene:
    """Some grasps of an object: side by side in the picture, one after the other in the scene.

    Args:
        hand: The hand.
        shape: The object.
        shown: Its grasps, in the object frame.
        indices: Which of them; those beyond the last are left out.
        size: Width and height of each picture, pixels.
        cloud: The object's cloud in the scene, such as what cameras saw; if None drawn evenly.

    Raises:
        ViewError: None of them is there.
        RenderError: A pose that is not finite.
    """
    chosen = [i for i in indices if 0 <= i < len(shown)]
    if not chosen:
        raise ViewError(
            f"{shape.name}: none of the grasps {list(indices)} to show; there are {len(shown)}"
        )
    pictures = render.render_grasps(hand, shape, np.asarray(shown.phi)[chosen], size)
    exhibit = Exhibit(_thing(shape, cloud), grasps=shown)
    page = export.page(hand, exhibit, chosen)
    return Scene(render.png(render.contact_sheet(pictures, _COLUMNS)), page)


def motion(
    hand: HandModel,
    shape: ObjectShape,
    shown: Motion,
    count: int = 4,
    size: tuple[int, int] = (320, 240),
) -> Scene:
    """A motion: evenly spaced frames in the picture, all of them played in the scene.

    Args:
        hand: The hand.
        shape: The object.
        shown: Hand and object in the world; the table is its plane z = 0.
        count: Frames in the picture.
        size: Width and height of each, pixels.

    Raises:
        RenderError: No frame, or a pose that is not finite.
    """
    every = max((len(shown) - 1) // max(count - 1, 1), 1)
    pictures = video.draw(hand, shape, shown, size, every)
    exhibit = Exhibit(_thing(shape), motions=(shown,))
    page = export.page(hand, exhibit, (0,))
    return Scene(render.png(video.strip(pictures, count, _COLUMNS)), page)


def _thing(shape: ObjectShape, cloud: Surface | None = None) -> tableau.Thing:
    return tableau.make_thing(shape.name, shape.vertices, shape.faces, cloud)
