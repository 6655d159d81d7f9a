"""The nodes of a scene: hand, object with its cloud, ground; each beneath a root of its own."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from realdex_jax.hand.load import HandModel
from sim import stage
from viewer import tableau
from viewer.server import viser
from viewer.tableau import Moment, Solid, Thing

_DOT = 0.0015
"""Size of a point of the cloud, metres."""
_GROUND = 0.8
"""Width of the ground, metres."""


class Figure:
    """Solids that are moved link by link: a hand, an arm."""

    def __init__(self, scene: viser.SceneApi, root: str, solids: Sequence[Solid]) -> None:
        """Makes a node for each solid beneath `root`."""
        self._links: list[tuple[viser.MeshHandle, int]] = []
        self._frame = scene.add_frame(root, show_axes=False)
        for solid in solids:
            node = scene.add_mesh_simple(
                f"{root}/{solid.name}",
                *tableau.creased(solid.vertices, solid.faces),
                color=rgb(solid.colour),
                cast_shadow=solid.name != "forearm",
            )
            self._links.append((node, solid.link))

    def move(self, wxyz_xyz_world_link: Float[np.ndarray, "l 7"]) -> None:
        """Moves all links: quaternion wxyz and position (m) of each."""
        for node, link in self._links:
            pose = wxyz_xyz_world_link[link]
            node.wxyz, node.position = pose[:4], pose[4:]

    def show(self, visible: bool) -> None:
        """Shows or hides all of it."""
        self._frame.visible = visible


class Body:
    """An object: its mesh and its cloud."""

    def __init__(self, scene: viser.SceneApi, root: str) -> None:
        """Without an object at first."""
        self._scene, self._root = scene, root
        self._frame = scene.add_frame(root, show_axes=False)
        self._mesh: viser.MeshHandle | None = None
        self._cloud: viser.PointCloudHandle | None = None
        self._plain = tableau.plain_colours(0)

    def set(self, thing: Thing, *, cloud: bool = True) -> None:
        """Shows another object."""
        for node in (self._mesh, self._cloud):
            if node is not None:
                node.remove()
        self._mesh = self._cloud = None
        if len(thing.faces):
            self._mesh = self._scene.add_mesh_simple(
                f"{self._root}/mesh",
                *tableau.creased(thing.vertices, thing.faces),
                color=rgb(tableau.to_bytes(np.array(stage.COLOURS["object"]))),
                side="double",
            )
        self._plain = tableau.plain_colours(len(thing.points))
        if cloud or self._mesh is None:
            self._cloud = self._scene.add_point_cloud(
                f"{self._root}/cloud",
                # Half a dot above the surface, which would cut through it.
                (thing.points + 0.5 * _DOT * thing.normals).astype(np.float32),
                self._plain,
                point_size=_DOT,
                point_shape="circle",
                precision="float32",
            )

    def move(self, wxyz_xyz_world_object: Float[np.ndarray, " 7"]) -> None:
        """Moves it."""
        pose = wxyz_xyz_world_object
        self._frame.wxyz, self._frame.position = pose[:4], pose[4:]

    def colour(self, contact: Float[np.ndarray, " n"] | None) -> None:
        """Colours its cloud by contact values; plain without them."""
        if self._cloud is not None:
            coloured = self._plain if contact is None else tableau.contact_colours(contact)
            self._cloud.colors = coloured

    def show(self, mesh: bool, cloud: bool) -> None:
        """Shows and hides its parts."""
        if self._mesh is not None:
            self._mesh.visible = mesh
        if self._cloud is not None:
            self._cloud.visible = cloud


class Props:
    """A hand, an object and the ground."""

    def __init__(self, scene: viser.SceneApi, root: str, hand: HandModel, forearm: bool) -> None:
        """Makes them beneath `root`, which begins with a slash."""
        self._frame = scene.add_frame(root, show_axes=False)
        self._hand = Figure(scene, f"{root}/hand", tableau.hand_solids(hand, forearm))
        self._body = Body(scene, f"{root}/object")
        self._ground = ground(scene, f"{root}/ground")

    def set_object(self, thing: Thing, p_world_ground: Float[np.ndarray, " 3"]) -> None:
        """Shows another object over a ground."""
        self._body.set(thing)
        self._ground.position = tuple(p_world_ground)

    def move(self, moment: Moment, contact_map: bool) -> None:
        """Moves hand and object, and colours the cloud."""
        self._hand.move(moment.wxyz_xyz_world_link)
        self._body.move(moment.wxyz_xyz_world_object)
        self._body.colour(moment.contact if contact_map else None)

    def show(self, hand: bool, mesh: bool, cloud: bool, ground: bool) -> None:
        """Shows and hides parts."""
        self._hand.show(hand)
        self._body.show(mesh, cloud)
        self._ground.visible = ground

    def show_all(self, visible: bool) -> None:
        """Shows or hides everything beneath the root."""
        self._frame.visible = visible


def ground(scene: viser.SceneApi, name: str, width: float = _GROUND) -> viser.GridHandle:
    """A square of the table's colour with lines every 5 cm."""
    return scene.add_grid(
        name,
        width=width,
        height=width,
        cell_size=0.05,
        section_size=0.1,
        cell_color=(205, 205, 202),
        section_color=(180, 180, 177),
        plane_color=rgb(tableau.to_bytes(np.array(stage.COLOURS["table"]))),
        plane_opacity=0.6,
        shadow_opacity=0.3,
    )


def rgb(colour: UInt8[np.ndarray, " 3"]) -> tuple[int, int, int]:
    """A colour as viser takes it."""
    r, g, b = (int(c) for c in colour)
    return r, g, b
