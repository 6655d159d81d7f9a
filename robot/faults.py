"""What may go wrong with a simulated robot: faults by name, and what they do to its messages."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from realdex_jax.errors import RealdexError
from robot.interface import JointState

KINDS: dict[str, str] = {
    "silent": "no joint states are sent, of both parts or of `part`",
    "freeze": "joint states keep their values and get new stamps, of both parts or of `part`",
    "delay": "joint states and commands come `by` seconds late, of both parts or of `part`",
    "drop": "a share `by` of all joint states and commands is lost",
    "nan": "`joint` is NaN in joint states",
    "jump": "`joint` is `by` radians off in joint states",
    "disorder": "every other joint state comes after the next one",
    "duplicate": "`joint` is named twice in joint states",
    "missing": "`joint` is left out of joint states",
    "clock": "stamps are `by` seconds off",
    "stuck": "`joint` does not move",
    "slow": "trajectories run at `by` of their speed, as by the slider on UR's pendant",
    "abort": "the controller of `part` gives up its trajectory and holds",
    "reject": "the controller of `part` refuses trajectories",
    "deaf": "the controller of `part` ignores what it is sent, stops too",
    "death": "the controller of `part` is gone: its joints hold, its topic closes; for good",
    "estop": "an emergency stop: all joints brake, all controllers refuse until it ends",
    "partition": "nothing comes in and nothing goes out",
}
"""Kinds of faults and what they do."""

_AMOUNT = {"delay": 0.1, "drop": 0.1, "jump": 0.5, "clock": -5.0, "slow": 0.1}
_RANGE = {"delay": (0.0, 5.0), "drop": (0.0, 1.0), "slow": (0.0, 1.0)}
_JOINT = "ra_elbow_joint"
_PARTS = ("arm", "hand")
_OF_ONE = ("abort", "reject", "deaf", "death")


class FaultError(RealdexError):
    """A fault that is not known, or makes no sense."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong for a while."""

    kind: str
    """One of `KINDS`."""
    at_s: float = 0.0
    """When it begins, seconds of the robot's time; when it is ordered, if that is later."""
    for_s: float = math.inf
    """How long it lasts."""
    by: float = 0.0
    """How much, where the kind says so."""
    joint: str = _JOINT
    """The joint, by our name, where the kind has one."""
    part: str = ""
    """arm or hand, where the kind has one; empty: both."""

    def active(self, now_s: float) -> bool:
        """Whether it acts at that time."""
        return self.at_s <= now_s < self.at_s + self.for_s


def parse(text: str, joints: Sequence[str], now_s: float = 0.0) -> Fault:
    """A fault from words such as `freeze at=2 for=0.5` or `stuck joint=rh_FFJ3`.

    Args:
        text: Kind, and what differs from the usual.
        joints: Names that a joint may have.
        now_s: Added to `at`.

    Raises:
        FaultError: The kind, a key or a value is not known.
    """
    words = text.split()
    if not words or words[0] not in KINDS:
        raise FaultError(f"no fault {text!r}; known: {', '.join(KINDS)}")
    kind, values = words[0], {"by": _AMOUNT.get(words[0], 0.0), "at": 0.0, "for": math.inf}
    names = {"joint": _JOINT if _JOINT in joints else joints[0]}
    names["part"] = "arm" if kind in _OF_ONE else ""
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key in names:
            names[key] = value
        elif key in values:
            values[key] = _number(value, f"fault {text!r}: {key}")
        else:
            known = ", ".join([*values, *names])
            raise FaultError(f"fault {text!r} has {word!r}; known: {known}, each as key=value")
    if names["joint"] not in joints:
        raise FaultError(f"fault {text!r}: no joint {names['joint']!r}; {', '.join(joints)}")
    if names["part"] not in _PARTS and (names["part"] or kind in _OF_ONE):
        raise FaultError(f"fault {text!r}: no part {names['part']!r}; {', '.join(_PARTS)}")
    low, high = _RANGE.get(kind, (-math.inf, math.inf))
    if not low <= values["by"] <= high or values["at"] < 0.0 or values["for"] <= 0.0:
        raise FaultError(f"fault {text!r}: by {low} to {high}, at from 0, for more than 0")
    return Fault(kind, now_s + values["at"], values["for"], values["by"], **names)


def find(faults: Sequence[Fault], kind: str, now_s: float, part: str = "") -> Fault | None:
    """The fault of a kind that acts now, of that part if one is given, or of both."""
    for fault in faults:
        of_it = not part or fault.part in ("", part)
        if fault.kind == kind and fault.active(now_s) and of_it:
            return fault
    return None


def altered(state: JointState, faults: Sequence[Fault], now_s: float) -> JointState:
    """What a state says with the faults that touch its values.

    Args:
        state: By our joint names.
        faults: All of them; those of other kinds and times do nothing.
        now_s: The robot's time.
    """
    names, q, qd, stamp_s = list(state.names), state.q.copy(), state.qd.copy(), state.stamp_s
    for fault in faults:
        if not fault.active(now_s):
            continue
        if fault.kind == "clock":
            stamp_s += fault.by
        if fault.joint not in names:
            continue
        j = names.index(fault.joint)
        if fault.kind == "nan":
            q[j] = np.nan
        elif fault.kind == "jump":
            q[j] += fault.by
        elif fault.kind == "duplicate":
            names, q, qd = [*names, names[j]], np.append(q, q[j]), np.append(qd, qd[j])
        elif fault.kind == "missing":
            names = names[:j] + names[j + 1 :]
            q, qd = np.delete(q, j), np.delete(qd, j)
    return JointState(stamp_s, state.received_s, tuple(names), q, qd)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value) or math.isinf(value):
        raise FaultError(f"{where} is {text!r}; it must be a number")
    return value
