"""The view of a robot that moves now: arm, hand and object as its joint states have them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from realdex_jax import arm
from realdex_jax.hand import joints
from realdex_jax.hand.load import HandModel
from viewer import figure, props, tableau
from viewer.server import Server, viser
from viewer.tableau import Thing, Viewpoint
from viewer.words import plain

_WORDS_S = 0.4
"""Seconds between two tables of the joints."""
_DRAWN_S = 0.05
"""Seconds between two pictures: joint states come faster than browsers draw."""
_GROUND = 2.4
_NAMES = (*(n.removeprefix("ra_").removesuffix("_joint") for n in arm.JOINTS), *joints.NAMES)


@dataclass(frozen=True, eq=False)
class Stance:
    """A robot at one time."""

    q_arm: Float[np.ndarray, " 6"]
    """Joints of the arm, radians, order `arm.JOINTS`."""
    phi: Float[np.ndarray, " 28"]
    """Pose of the hand in the world."""
    received_s: float
    """When it came, by the monotonic clock, seconds."""
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None = None


@runtime_checkable
class Watched(Protocol):
    """A robot that is watched. Calls return at once."""

    name: str
    thing: Thing | None
    """The object before it, if somebody tells where it is."""
    actions: tuple[str, ...]
    """What visitors may ask for; nothing of a real robot."""

    def stance(self) -> Stance | None:
        """The last one; None before the first."""
        ...

    def words(self) -> str:
        """What is to be said of it: what it does, what went wrong."""
        ...

    def act(self, action: str) -> None:
        """Does one of `actions`, meanwhile."""
        ...

    def close(self) -> None:
        """Lets go of it; may be called twice."""
        ...


class Live:
    """A `Panel` that shows a robot."""

    title = "Robot"

    def __init__(self, hand: HandModel, watched: Watched) -> None:
        """Of a hand on the arm, and of what tells where both are."""
        self._hand, self._watched = hand, watched
        self._drawn: Stance | None = None
        self._drawn_at = self._said_at = -np.inf

    def open(self, server: Server) -> None:
        """As `Panel` says."""
        self._server = server
        scene, gui = server.scene, server.gui
        self._frame = scene.add_frame("/robot", show_axes=False)
        props.ground(scene, "/robot/ground", _GROUND)
        self._arm = props.Figure(scene, "/robot/arm", figure.arm_solids())
        self._fingers = props.Figure(scene, "/robot/hand", tableau.hand_solids(self._hand))
        self._stands(False)
        self._body: props.Body | None = None
        if self._watched.thing is not None:
            self._body = props.Body(scene, "/robot/object")
            self._body.set(self._watched.thing, cloud=False)
        for what in self._watched.actions:
            gui.add_button(what.capitalize()).on_click(self._asked(what))
        self._words = gui.add_markdown(f"**{plain(self._watched.name)}**: not heard of yet")

    def show(self, visible: bool) -> None:
        """As `Panel` says."""
        self._frame.visible = visible

    def tick(self, now: float) -> None:
        """As `Panel` says."""
        stance = self._watched.stance()
        fresh = stance is not None and stance is not self._drawn
        if stance is not None and fresh and now - self._drawn_at >= _DRAWN_S:
            if self._drawn is None:
                self._stands(True)
            self._drawn, self._drawn_at = stance, now
            with self._server.atomic():
                self._arm.move(figure.arm_poses(stance.q_arm))
                self._fingers.move(tableau.link_poses(self._hand, stance.phi))
                if self._body is not None and stance.wxyz_xyz_world_object is not None:
                    self._body.move(stance.wxyz_xyz_world_object)
            self._server.flush()
        if now - self._said_at >= _WORDS_S:
            self._said_at = now
            self._words.content = self._said(stance, now)
            self._server.flush()

    def viewpoint(self) -> Viewpoint | None:
        """As `Panel` says: the whole robot from the side."""
        return Viewpoint(np.array([0.7, -2.3, 1.25]), np.array([-0.6, 0.0, 0.55]))

    def close(self) -> None:
        """As `Panel` says."""
        self._watched.close()

    def _stands(self, visible: bool) -> None:
        """Shows arm and hand, or hides them while nobody knows where they are."""
        self._arm.show(visible)
        self._fingers.show(visible)

    def _asked(self, what: str) -> Callable[[viser.GuiEvent], None]:
        def ask(_: viser.GuiEvent) -> None:
            self._watched.act(what)

        return ask

    def _said(self, stance: Stance | None, now: float) -> str:
        head = f"**{plain(self._watched.name)}**"
        said = plain(self._watched.words())
        if stance is None:
            return f"{head}: not heard of yet\n\n{said}"
        age = now - stance.received_s
        state = f"{1e3 * max(age, 0.0):.0f} ms old" if age < 1.0 else f"silent for {age:.0f} s"
        lines = [
            f"{head}: {state}",
            "",
            said,
            "",
            "| joint | deg | &emsp; | joint | deg |",
            "|:---|---:|---|:---|---:|",
        ]
        q = np.rad2deg(np.concatenate([stance.q_arm, stance.phi[: len(joints.NAMES)]]))
        half = len(_NAMES) // 2
        for i in range(half):
            cells = (f"{plain(_NAMES[j])} | {q[j]:.1f}" for j in (i, i + half))
            lines.append(f"| {' | | '.join(cells)} |")
        return "\n".join(lines)
