"""What a robot is called on ROS 2: joint names, topics, quality of service, read from one file."""

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from realdex_jax import arm
from realdex_jax.errors import RealdexError
from realdex_jax.hand import joints
from robot import limits

FILE = Path(__file__).with_name("presets.toml")
"""The presets that come with the project."""
PARTS: dict[str, tuple[str, ...]] = {
    "arm": arm.JOINTS,
    "hand": (*arm.WRIST_JOINTS, *(f"rh_{name}" for name in joints.NAMES)),
}
"""Joints of each part by our names; the hand's two wrist joints are the hand controller's."""
SIMULATED = "/realdex_sim/"
"""How every topic of a simulated robot begins, and none of a real one."""
Hold = Literal["measured", "commanded"]
Reliability = Literal["reliable", "best_effort"]

_MAX_BYTES = 1 << 20
_TOPIC = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
_JOINT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEEDED = ("controller", "prefix", "hold", "deceleration")
_OUR_PREFIX = {"arm": "ra_", "hand": "rh_"}


class PresetError(RealdexError):
    """A preset that is not there, or breaks a rule."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One trajectory controller and its joints."""

    name: str
    """arm or hand."""
    controller: str
    """Name of the controller with a leading slash; it takes `<controller>/joint_trajectory`."""
    ours: tuple[str, ...]
    """Joint names of this project."""
    theirs: tuple[str, ...]
    """The same joints as the driver calls them."""
    hold: Hold
    """Where a stop holds: where joints are measured, or where they were told to be: a hand that
    held its measured place would let go of what it squeezes."""
    deceleration: float
    """With which a stop brakes, rad/s^2, if `brake_s` is not longer."""

    @property
    def topic(self) -> str:
        """Where trajectories go."""
        return f"{self.controller}/joint_trajectory"


@dataclasses.dataclass(frozen=True)
class Preset:
    """All names of one robot."""

    name: str
    parts: tuple[Part, ...]
    """Arm, hand, or both."""
    joint_states: tuple[str, ...]
    """Topics with sensor_msgs/JointState; every part of a state may come in its own message."""
    sources: int = 1
    """Publishers of each of them: with one more, states of two robots would be mixed."""
    local: bool = False
    """Look for the robot on this machine alone."""
    stamped: bool = True
    """Trajectories that begin at 0 say when that is. False has controllers begin when they get
    them: for a robot whose clock is not this machine's."""
    heartbeat: str = ""
    """Topic of the client's sign of life, 50 a second; none if empty."""
    reports: str = ""
    """Topic on which controllers say what went wrong; none if empty."""
    orders: str = ""
    """Topic of a simulated robot's faults and resets; none if empty."""
    object_pose: str = ""
    """Topic with the true pose of the object; none if empty."""
    states_qos: Reliability = "best_effort"
    """Of joint states: best effort hears reliable senders too, and never waits for old ones."""
    commands_qos: Reliability = "reliable"
    """Of trajectories."""
    depth: int = 10
    """Messages that are kept for a slow reader."""
    lost_s: float = 0.25
    """Seconds without joint states after which the connection is reported lost."""
    brake_s: float = limits.BRAKE_S
    """Least seconds in which a stop brings joints to rest."""

    def part(self, name: str) -> Part:
        """The part of that name.

        Raises:
            PresetError: This robot has none.
        """
        for part in self.parts:
            if part.name == name:
                return part
        known = ", ".join(part.name for part in self.parts)
        raise PresetError(f"preset {self.name!r} has no part {name!r}; it has {known}")

    @property
    def joints(self) -> tuple[str, ...]:
        """All joints by our names: arm, wrist, hand."""
        return tuple(name for part in self.parts for name in part.ours)

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics that are spoken or heard."""
        more = (self.heartbeat, self.reports, self.orders, self.object_pose)
        return (
            *self.joint_states,
            *(part.topic for part in self.parts),
            *(topic for topic in more if topic),
        )

    def our_names(self) -> dict[str, str]:
        """Our name of each joint by the driver's."""
        return {b: a for part in self.parts for a, b in zip(part.ours, part.theirs, strict=True)}


def read(name: str, path: str | Path = FILE) -> Preset:
    """Reads one preset.

    Args:
        name: Its table in the file.
        path: A file of presets.

    Raises:
        PresetError: The file cannot be read, has no such preset, or a value breaks a rule.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PresetError(f"{path} has {path.stat().st_size} bytes; at most {_MAX_BYTES}")
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PresetError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested without end
        raise PresetError(f"{path} is not a file of presets: {error}") from error
    if name not in tables:
        raise PresetError(f"{path} has no preset {name!r}; it has {', '.join(tables) or 'none'}")
    if not isinstance(tables[name], dict):
        raise PresetError(f"{path}: {name} is {tables[name]!r}; a preset is a table")
    return preset(name, tables[name], str(path))


def read_simulated(name: str, path: str | Path = FILE) -> Preset:
    """As `read`, for what may move without anybody's leave: no real robot can be meant.

    Raises:
        PresetError: As `read`; or it is looked for beyond this machine, or has a topic that does
            not begin with `SIMULATED`.
    """
    found = read(name, path)
    real = [topic for topic in found.topics if not topic.startswith(SIMULATED)]
    if real or not found.local:
        raise PresetError(
            f"{path}: {name} is no simulated robot: local is {str(found.local).lower()} (must be "
            f"true), topics that do not begin with {SIMULATED}: {', '.join(real) or 'none'}"
        )
    return found


def preset(name: str, table: Mapping[str, Any], where: str = "preset") -> Preset:
    """A preset from its table; `where` is named in errors.

    Raises:
        PresetError: A key that is not known or missing, or a value that breaks a rule.
    """
    where = f"{where}: {name}"
    fields = {f.name: f for f in dataclasses.fields(Preset)} | dict.fromkeys(PARTS)
    del fields["name"], fields["parts"]
    _known(table, tuple(fields), where)
    parts = tuple(_part(p, table[p], f"{where}.{p}") for p in PARTS if p in table)
    if not parts:
        raise PresetError(f"{where} has neither arm nor hand; it must have one of them")
    theirs = [name for part in parts for name in part.theirs]
    twice = sorted({name for name in theirs if theirs.count(name) > 1})
    if twice:
        raise PresetError(f"{where}: joints named twice: {', '.join(twice)}")
    if len({part.controller for part in parts}) != len(parts):
        raise PresetError(f"{where}: arm and hand have one controller, {parts[0].controller}")
    topics = table.get("joint_states", ())
    if not isinstance(topics, list) or not topics:
        raise PresetError(f"{where}.joint_states is {topics!r}; it must be a list of topics")
    given: dict[str, Any] = {
        "joint_states": tuple(_topic(t, f"{where}.joint_states") for t in topics)
    }
    for key in ("heartbeat", "reports", "orders", "object_pose"):
        if table.get(key, "") != "":
            given[key] = _topic(table[key], f"{where}.{key}")
    for key in ("local", "stamped"):
        if key in table:
            given[key] = _choice(table[key], (True, False), f"{where}.{key}")
    for key in ("states_qos", "commands_qos"):
        if key in table:
            given[key] = _choice(table[key], get_args(Reliability), f"{where}.{key}")
    for key, most in (("depth", 1000), ("sources", 10)):
        if key in table:
            given[key] = int(_number(table[key], 1, most, f"{where}.{key}", whole=True))
    for key, low, high in (("lost_s", 0.02, 10.0), ("brake_s", 0.02, 2.0)):
        if key in table:
            given[key] = _number(table[key], low, high, f"{where}.{key}")
    return Preset(name=name, parts=parts, **given)


def _part(name: str, table: object, where: str) -> Part:
    if not isinstance(table, dict):
        raise PresetError(f"{where} is {table!r}; it must be a table")
    _known(table, (*_NEEDED, "rename"), where)
    missing = [key for key in _NEEDED if key not in table]
    if missing:
        raise PresetError(f"{where} has no {', '.join(missing)}")
    prefix = table["prefix"]
    if not isinstance(prefix, str) or (prefix and not _JOINT.fullmatch(prefix)):
        raise PresetError(f"{where}.prefix is {prefix!r}; letters, digits and _ go before a name")
    rename = table.get("rename", {})
    if not isinstance(rename, dict):
        raise PresetError(f"{where}.rename is {rename!r}; it must be a table of names")
    _known(rename, PARTS[name], f"{where}.rename")
    for ours, theirs in rename.items():
        if not isinstance(theirs, str) or not _JOINT.fullmatch(theirs):
            raise PresetError(f"{where}.rename.{ours} is {theirs!r}; that is no joint's name")
    return Part(
        name=name,
        controller=_topic(table["controller"], f"{where}.controller"),
        ours=PARTS[name],
        theirs=tuple(
            rename.get(n, prefix + n.removeprefix(_OUR_PREFIX[name])) for n in PARTS[name]
        ),
        hold=_choice(table["hold"], get_args(Hold), f"{where}.hold"),
        deceleration=_number(table["deceleration"], 0.1, 100.0, f"{where}.deceleration"),
    )


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = [key for key in table if key not in keys]
    if unknown:
        raise PresetError(f"{where} has unknown {', '.join(unknown)}; known: {', '.join(keys)}")


def _topic(value: object, where: str) -> str:
    if not isinstance(value, str) or not _TOPIC.fullmatch(value):
        raise PresetError(f"{where} is {value!r}; a name of ROS is like /word/word")
    return value


def _choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if not any(value is c or (isinstance(value, str) and value == c) for c in choices):
        raise PresetError(f"{where} is {value!r}; it must be one of {choices}")
    return value


def _number(value: object, low: float, high: float, where: str, *, whole: bool = False) -> float:
    kind = int if whole else (int, float)
    if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
        raise PresetError(f"{where} is {value!r}; it must be a {'whole ' if whole else ''}number")
    if not low <= value <= high:
        raise PresetError(f"{where} is {value}; it must be {low} to {high}")
    return value
