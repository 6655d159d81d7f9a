"""Grasps and motions as files of their own: a page, or a scene for viser's player."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import results
from realdex_jax.hand.load import HandModel
from viewer import server as servers
from viewer import tableau
from viewer.props import Props
from viewer.server import FIELD_OF_VIEW
from viewer.tableau import Exhibit, Moment, ViewError

SUFFIXES = (".html", ".viser")
"""Kinds of files that `save` writes."""
EACH = 2.5
"""Seconds that each grasp of a set is shown."""
_PAUSE = 1.0
"""Seconds that the last frame of a motion stays."""
_TICK = 1.0 / 30.0
_CAPTION = 0.25
"""Height of a caption over the middle of what is seen, metres."""


def moment_of(
    hand: HandModel,
    exhibit: Exhibit,
    index: int,
    frame: int = 0,
    posture: tableau.Posture = "grasp",
) -> Moment:
    """One grasp in a posture, or one frame of a motion."""
    if exhibit.motions is not None:
        motion = exhibit.motions[index]
        phi, placed = np.asarray(motion.phi), np.asarray(motion.wxyz_xyz_world_object)
        return tableau.moment(hand, exhibit.thing, phi[frame], placed[frame])
    assert exhibit.grasps is not None
    return tableau.moment(hand, exhibit.thing, tableau.pose_of(exhibit.grasps, index, posture))


def save(
    path: Path,
    hand: HandModel,
    exhibit: Exhibit,
    indices: Sequence[int] = (0,),
    contact_map: bool = True,
) -> Path:
    """Writes one grasp, several that come one after the other, or one motion that plays.

    The file is whole or not there at all.

    Args:
        path: `.html`, a page that needs nothing else, or `.viser`, for pages of one's own.
        hand: The hand.
        exhibit: Where the grasps or the motion are from.
        indices: Which ones; of motions one.
        contact_map: Whether the cloud is coloured by it.

    Raises:
        ConfigError: Another suffix, or the file cannot be written.
        ViewError: No grasp or motion of an index.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--save {path}: a scene is written as {' or '.join(SUFFIXES)}")
    make = page if path.suffix == ".html" else scene
    written = make(hand, exhibit, indices, contact_map)
    try:
        results.write_whole(path, written)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return path


def page(
    hand: HandModel, exhibit: Exhibit, indices: Sequence[int], contact_map: bool = True
) -> bytes:
    """A page that needs neither server nor network; arguments and errors are those of `save`."""
    return _played(hand, exhibit, indices, contact_map, page=True)


def scene(
    hand: HandModel, exhibit: Exhibit, indices: Sequence[int], contact_map: bool = True
) -> bytes:
    """The same as a scene of viser's own format."""
    return _played(hand, exhibit, indices, contact_map, page=False)


def _played(
    hand: HandModel, exhibit: Exhibit, indices: Sequence[int], contact_map: bool, *, page: bool
) -> bytes:
    name, count = exhibit.thing.name, len(exhibit)
    for index in indices:
        if not 0 <= index < count:
            raise ViewError(f"no number {index} for {name}; there are {count}, from 0")
    if not indices or (exhibit.motions is not None and len(indices) > 1):
        raise ViewError(f"{name}: {len(indices)} to write; one motion, or one grasp or more")
    motion = exhibit.motions[indices[0]] if exhibit.motions is not None else None
    if motion is None:
        moments = [moment_of(hand, exhibit, index) for index in indices]
        seconds = EACH * np.arange(len(indices))
    else:
        moments = [moment_of(hand, exhibit, indices[0], k) for k in range(len(motion))]
        seconds = np.asarray(motion.time, np.float64)
    server = servers.start("127.0.0.1", 0, name)
    try:
        props = Props(server.scene, "/shown", hand, motion is not None)
        props.set_object(exhibit.thing, ground_of(exhibit))
        props.show(hand=True, mesh=True, cloud=True, ground=motion is not None)
        seen = tableau.viewpoint(exhibit.thing, moments, FIELD_OF_VIEW)
        servers.look(server.initial_camera, seen)
        label = None
        if len(indices) > 1:
            above = seen.p_world_target + np.array([0.0, 0.0, _CAPTION])
            label = server.scene.add_label("/caption", _caption(exhibit, indices[0]))
            label.position = tuple(above)
        props.move(moments[0], contact_map)
        recorder = server.get_scene_serializer()
        for k, passed in enumerate(np.diff(seconds), 1):
            recorder.insert_sleep(float(passed))
            props.move(moments[k], contact_map)
            if label is not None:
                label.text = _caption(exhibit, indices[k])
        if len(moments) > 1:
            recorder.insert_sleep(_PAUSE if motion is not None else EACH)
            props.move(moments[0], contact_map)  # the player begins again without going back
            if label is not None:
                label.text = _caption(exhibit, indices[0])
            recorder.insert_sleep(_TICK)
        return recorder.as_html().encode() if page else recorder.serialize()
    finally:
        servers.stop(server)


def _caption(exhibit: Exhibit, index: int) -> str:
    """What is said over a grasp of a set."""
    score = exhibit.grasps.columns.get("score") if exhibit.grasps is not None else None
    said = "" if score is None else f", {float(np.asarray(score)[index]):.2f} of 5"
    return f"{exhibit.thing.name}, grasp {index}{said}"


def ground_of(exhibit: Exhibit) -> Float[np.ndarray, " 3"]:
    """Middle of the ground: the table of motions, else below the object."""
    if exhibit.motions is None:
        return np.array([0.0, 0.0, tableau.lowest(exhibit.thing)])
    x, y = np.asarray(exhibit.motions[0].wxyz_xyz_world_object)[0, 4:6]
    return np.array([x, y, 0.0])


def file_stem(name: str) -> str:
    """A name that any file system takes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60]
