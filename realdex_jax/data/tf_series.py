"""The robot's TF series of a recording: one file of poses for each link, relative to its parent.

From them come what the exported sequences lack: the palm's pose with the true wrist, the two wrist
angles, and the 22 joint angles. Poses are interpolated between messages; where messages are too far
apart, or the recording has not begun, there is no pose.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.data import rigid, textfile, unpickle
from realdex_jax.errors import DatasetError
from realdex_jax.hand.load import HandModel

WORLD, PALM = "world", "rh_palm"
CACHES = ("tf_seq.npy", "global_tf_all_in_one.npy")
"""Names that the release's own tools give the evaluated tree."""
WRIST: tuple[tuple[str, str, tuple[float, float, float]], ...] = (
    ("WRJ2", "rh_wrist", (0.0, 1.0, 0.0)),
    ("WRJ1", "rh_palm", (1.0, 0.0, 0.0)),
)
"""Joint, link that it moves, axis. Facts: Shadow's published URDF."""
MAX_GAP = 0.2
"""Seconds between two messages over which poses are interpolated."""
_OFF_AXIS = 0.05
"""Radians by which a link may be turned about anything but its joint's axis."""
_MAX_LINKS = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Edge:
    """One link over time; n messages."""

    time_ns: Int[np.ndarray, " n"]
    """Strictly rising."""
    wxyz_xyz_parent_link: Float[np.ndarray, "n 7"]
    """Quaternion wxyz and position (m)."""

    @property
    def still(self) -> bool:
        """One message alone holds for all time."""
        return len(self.time_ns) == 1


@dataclasses.dataclass(frozen=True, eq=False)
class HandTrack:
    """The hand at t wanted times."""

    time_ns: Int[np.ndarray, " t"]
    """The robot's clock."""
    valid: Bool[np.ndarray, " t"]
    """False where the series has a gap or has ended; the poses there are the nearest known."""
    q: Float[np.ndarray, "t 22"]
    """Joint angles, radians, order `joints.NAMES`."""
    q_wrist: Float[np.ndarray, "t 2"]
    """WRJ2 and WRJ1, radians."""
    wxyz_xyz_world_palm: Float[np.ndarray, "t 7"]
    """T_world_palm: quaternion wxyz and position (m)."""

    @property
    def phi(self) -> Float[np.ndarray, "t 28"]:
        """Hand poses in the world, as `realdex_jax.pose` has them."""
        wxyz, p = self.wxyz_xyz_world_palm[:, :4], self.wxyz_xyz_world_palm[:, 4:]
        turn = Rotation.from_quat(wxyz, scalar_first=True).as_rotvec()
        return np.concatenate([self.q, p, turn], axis=1)


class Tree:
    """The links of a `TF` folder; a file is read when a chain first needs it."""

    def __init__(self, folder: Path) -> None:
        """Lists the folder.

        Args:
            folder: `TF` of a recording, with files `<parent>-<child>.txt`.

        Raises:
            DatasetError: It cannot be listed.
        """
        self.folder = folder
        self.files: dict[str, list[tuple[str, Path]]] = {}
        """Parents and files by link; more than one only matters where a chain passes."""
        try:
            found = sorted(folder.glob("*.txt"))
        except OSError as error:
            raise DatasetError(f"{folder}: cannot be read ({error.strerror})") from error
        for path in found:
            parent, dash, child = path.stem.partition("-")
            if dash and parent and child:
                self.files.setdefault(child, []).append((parent, path))
        self._edge = functools.cache(read_edge)

    def edge(self, link: str) -> Edge:
        """One link relative to its parent.

        Raises:
            DatasetError: It has no file or several, or the file is malformed.
        """
        return self._edge(self._file(link)[1])

    def chain(self, link: str, root: str = WORLD) -> tuple[str, ...]:
        """The links from below `root` to `link`.

        Raises:
            DatasetError: The chain breaks off or turns in a circle; the message says where.
        """
        found = [link]
        while True:
            parent, _ = self._file(found[-1])
            if parent == root:
                return tuple(reversed(found))
            if parent in found or len(found) == _MAX_LINKS:
                raise DatasetError(f"{self.folder}: {link} hangs on {parent}, which hangs on it")
            found.append(parent)

    def poses(
        self, link: str, time_ns: Int[np.ndarray, " t"], max_gap: float = MAX_GAP
    ) -> tuple[Float[np.ndarray, "t 7"], Bool[np.ndarray, " t"]]:
        """T_world_link at any times, and where every link on the way is known.

        Raises:
            DatasetError: As `chain` and `edge`.
        """
        placed = np.repeat(np.eye(7)[:1], len(time_ns), axis=0)
        valid = np.ones(len(time_ns), bool)
        for name in self.chain(link):
            local, known = sample(self.edge(name), time_ns, max_gap)
            placed, valid = rigid.compose(placed, local), valid & known
        return placed, valid

    def _file(self, link: str) -> tuple[str, Path]:
        files = self.files.get(link, [])
        if len(files) != 1:
            names = ", ".join(path.name for _, path in files) or "no file"
            raise DatasetError(
                f"{self.folder}: link {link!r} must have one file <parent>-{link}.txt; it has "
                f"{names}"
            )
        return files[0]


def read_edge(path: Path) -> Edge:
    """Reads one link's file; as `parse_edge`."""
    return parse_edge(textfile.read_text(path), str(path))


def parse_edge(text: str, where: str) -> Edge:
    """One link's messages: lines `time_ns tx ty tz qx qy qz qw`.

    Of messages with the same stamp the last counts; messages out of order are sorted. Those that
    are no poses are left out.

    Args:
        text: The file's content.
        where: The file, for messages.

    Raises:
        DatasetError: It is empty, a line is malformed, or no message is a pose.
    """
    stamps, rows = textfile.series(text, 7, where, finite=False)
    if not len(stamps):
        raise DatasetError(f"{where}: no line; a link has at least one pose")
    poses, whole = rigid.whole_of_ros(rows, where)
    stamps, poses = stamps[whole], poses[whole]
    order = np.argsort(stamps, kind="stable")
    stamps, poses = stamps[order], poses[order]
    last = np.append(stamps[1:] != stamps[:-1], True)
    return Edge(stamps[last], poses[last])


def sample(
    edge: Edge, time_ns: Int[np.ndarray, " t"], max_gap: float = MAX_GAP
) -> tuple[Float[np.ndarray, "t 7"], Bool[np.ndarray, " t"]]:
    """Poses of a link at any times, and where they are known.

    A time is known if it lies between two messages at most `max_gap` seconds apart, or within half
    of that of the nearest message. A link with one message is known always.
    """
    if edge.still:
        return rigid.interpolate(np.zeros(1), edge.wxyz_xyz_parent_link, np.zeros(len(time_ns))), (
            np.ones(len(time_ns), bool)
        )
    poses = rigid.interpolate(
        _seconds(edge.time_ns, edge.time_ns[0]),
        edge.wxyz_xyz_parent_link,
        _seconds(time_ns, edge.time_ns[0]),
    )
    return poses, known_at(edge.time_ns, time_ns, max_gap)


def known_at(
    samples_ns: Int[np.ndarray, " n"], time_ns: Int[np.ndarray, " t"], max_gap: float
) -> Bool[np.ndarray, " t"]:
    """Which times samples (rising) tell about, as `sample` has it."""
    gap = int(max_gap * 1e9)
    right = np.searchsorted(samples_ns, time_ns)
    after = samples_ns[np.minimum(right, len(samples_ns) - 1)]
    before = samples_ns[np.maximum(right - 1, 0)]
    inside = (right > 0) & (right < len(samples_ns)) & (after - before <= gap)
    near = np.minimum(np.abs(after - time_ns), np.abs(before - time_ns)) <= gap // 2
    return inside | near


def hand_track(
    hand: HandModel, folder: Path, time_ns: Int[np.ndarray, " t"], max_gap: float = MAX_GAP
) -> HandTrack:
    """The hand over time: from the links' files, or where there are none from the tools' cache.

    Args:
        hand: The hand whose links the angles are read off; `load("shadow")` has the URDF's.
        folder: `TF` of a recording.
        time_ns: Wanted times, of the robot's clock.
        max_gap: Seconds between messages over which poses are interpolated.

    Raises:
        DatasetError: A file is missing or malformed, or a link is turned as its joint cannot.
    """
    tree = Tree(folder)
    cached = next((folder / name for name in CACHES if (folder / name).is_file()), None)
    if PALM not in tree.files and cached is not None:
        return _from_cache(hand, cached, time_ns, max_gap)
    palm, valid = tree.poses(PALM, time_ns, max_gap)
    q, q_wrist = np.zeros((len(time_ns), 22)), np.zeros((len(time_ns), 2))
    for link, R_parent_zero, axis, place in _joints(hand):
        local, known = sample(tree.edge(link), time_ns, max_gap)
        angle = joint_angle(local[:, :4], R_parent_zero, axis, str(tree._file(link)[1]), known)
        valid = valid & known
        (q if place >= 0 else q_wrist)[:, place if place >= 0 else place + 2] = angle
    return HandTrack(time_ns, valid, q, q_wrist, palm)


def _joints(
    hand: HandModel,
) -> list[tuple[str, Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"], int]]:
    """Link, its turn at zero, axis and column of each joint; WRJ2 is -2 and WRJ1 -1."""
    wrist = [(link, np.eye(3), np.array(axis), i - 2) for i, (_, link, axis) in enumerate(WRIST)]
    fingers = [
        (
            f"rh_{hand.link_names[i]}",
            np.asarray(hand.R_parent_link[i], np.float64),
            np.asarray(hand.axis[i], np.float64),
            hand.joint[i],
        )
        for i in range(1, len(hand.link_names))
    ]
    return wrist + fingers


def joint_angle(
    wxyz: Float[np.ndarray, "t 4"],
    R_parent_zero: Float[np.ndarray, "3 3"],
    axis: Float[np.ndarray, " 3"],
    where: str,
    known: Bool[np.ndarray, " t"],
) -> Float[np.ndarray, " t"]:
    """How far (rad) a link is turned about its joint's axis.

    Args:
        wxyz: Its orientation in its parent.
        R_parent_zero: The same at angle zero.
        axis: The axis in the link's frame.
        where: Shown in errors.
        known: Rows that count.

    Raises:
        DatasetError: It is turned about something else.
    """
    R_parent_link = Rotation.from_quat(wxyz, scalar_first=True)
    turn = (Rotation.from_matrix(R_parent_zero).inv() * R_parent_link).as_rotvec()
    angle = turn @ axis
    off = np.where(known, np.linalg.norm(turn - angle[:, None] * axis, axis=1), 0.0)
    if off.max(initial=0.0) > _OFF_AXIS:
        raise DatasetError(
            f"{where}: turned by {off.max():.3f} rad beside its joint's axis "
            f"{np.round(axis, 3).tolist()}; at most {_OFF_AXIS}"
        )
    return angle


def _from_cache(
    hand: HandModel, path: Path, time_ns: Int[np.ndarray, " t"], max_gap: float
) -> HandTrack:
    """From the evaluated tree: a pickled dict of matrices and angles by stamp and link."""
    stamps, palm, q24 = read_cache(hand, path)
    time, at = _seconds(stamps, stamps[0]), _seconds(time_ns, stamps[0])
    angles = np.stack([np.interp(at, time, column) for column in q24.T], axis=1)
    placed = rigid.interpolate(time, palm, at)
    valid = known_at(stamps, time_ns, max_gap)
    return HandTrack(time_ns, valid, angles[:, 2:], angles[:, :2], placed)


def read_cache(
    hand: HandModel, path: Path
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 7"], Float[np.ndarray, "n 24"]]:
    """Reads `tf_seq.npy`, which holds a pickle, without running anything in it.

    Stamps at which a joint or the palm is not known yet are left out. They were rounded to 256 ns
    by the tools that wrote them.

    Returns:
        Stamps (ns), T_world_palm, and angles (rad): WRJ2, WRJ1, then `joints.NAMES`.

    Raises:
        DatasetError: It asks for more than plain data, or is built otherwise.
    """
    found = unpickle.load_objects(path)
    content = found[0] if len(found) == 1 else None
    parts = [content.get(k) if isinstance(content, dict) else None for k in _CACHED]
    if not all(isinstance(part, dict) for part in parts):
        raise DatasetError(f"{path}: expected one dict of the dicts {', '.join(_CACHED)}")
    tree, angles = parts
    assert isinstance(tree, dict)
    assert isinstance(angles, dict)
    order = sorted(_joints(hand), key=lambda joint: joint[3])
    links = [link for link, *_ in order]
    rows: list[tuple[int, Float[np.ndarray, " 7"], list[float]]] = []
    for key in angles:
        where = f"{path}, stamp {key!r:.40}"
        if not isinstance(key, (int, np.integer, float, np.floating)) or not 0 <= key < 2**63:
            raise DatasetError(f"{where}: not a count of ns")
        turned, placed = angles[key], tree.get(key)
        if not isinstance(turned, dict) or not isinstance(placed, dict):
            raise DatasetError(f"{where}: must be a dict of links in both {', '.join(_CACHED)}")
        if PALM in placed and all(link in turned for link in links):
            T = _matrix(placed[PALM], f"{where}, {PALM}")
            rows.append((int(key), rigid.of_matrix(T, where), _row(turned, links, where)))
    if not rows:
        raise DatasetError(f"{path}: no stamp at which all {len(links)} joints are known")
    rows.sort(key=lambda row: row[0])
    stamps = np.array([row[0] for row in rows], np.int64)
    if not (np.diff(stamps) > 0).all():
        raise DatasetError(f"{path}: a stamp is there twice")
    return stamps, np.stack([row[1] for row in rows]), np.array([row[2] for row in rows])


_CACHED = ("global_tf", "joint_angle")


def _matrix(value: Any, where: str) -> Float[np.ndarray, "4 4"]:
    if not isinstance(value, np.ndarray) or value.shape != (4, 4) or value.dtype.kind not in "fiu":
        raise DatasetError(f"{where}: must be a matrix of 4 x 4 numbers")
    return value.astype(np.float64)


def _row(turned: Mapping[Any, Any], links: list[str], where: str) -> list[float]:
    row = []
    for link in links:
        value = turned[link]
        plain = (
            value.item()
            if isinstance(value, (np.ndarray, np.generic)) and value.size == 1
            else value
        )
        if not isinstance(plain, (int, float)) or not abs(plain) < 7.0:
            raise DatasetError(f"{where}, {link}: {plain!r:.40} is not an angle in radians")
        row.append(float(plain))
    return row


def _seconds(time_ns: Int[np.ndarray, "*t"], start: np.int64) -> Float[np.ndarray, "*t"]:
    """Seconds since a stamp: the difference is taken in integers."""
    return (time_ns - start) * 1e-9
