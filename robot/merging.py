"""Joint states that come in several messages, put together joint by joint."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from robot.interface import JointState


@dataclasses.dataclass(frozen=True, eq=False)
class Merged:
    """The last value of every joint."""

    names: tuple[str, ...]
    """Joints by our names."""
    q: Float[np.ndarray, " j"]
    """Positions, radians; NaN before the first."""
    qd: Float[np.ndarray, " j"]
    """Velocities, radians per second."""
    stamp_s: Float[np.ndarray, " j"]
    """By the sender's clock, seconds."""
    received_s: Float[np.ndarray, " j"]
    """By this machine's, seconds."""


def init(names: tuple[str, ...]) -> Merged:
    """Nothing known yet."""
    nothing = np.full(len(names), np.nan)
    return Merged(names, nothing, nothing, nothing, nothing)


def take(
    merged: Merged, message: JointState, our_names: dict[str, str]
) -> tuple[Merged, tuple[str, ...]]:
    """Takes what a message says of our joints; other joints are passed over.

    A message that is older than the last of the same joints, names a joint twice or has values that
    are not finite is passed over as a whole.

    Args:
        merged: What is known.
        message: Joints by the driver's names.
        our_names: Our name by the driver's.

    Returns:
        What is known now, and what was wrong with the message.
    """
    row = {name: j for j, name in enumerate(merged.names)}
    theirs = [i for i, name in enumerate(message.names) if name in our_names]
    into = [row[our_names[message.names[i]]] for i in theirs]
    if not into:
        return merged, ()
    if len(set(into)) != len(into):
        return merged, (f"joint states name {_doubled(message.names)} twice",)
    q, qd = np.asarray(message.q)[theirs], np.asarray(message.qd)[theirs]
    broken = ~(np.isfinite(q) & np.isfinite(qd))
    if broken.any():
        return merged, (f"joint state of {merged.names[into[int(broken.argmax())]]} is not finite",)
    back = np.nanmax(np.append(merged.stamp_s[into] - message.stamp_s, 0.0))
    if back > 0.0:
        return merged, (f"joint states go back by {back:.3f} s",)
    fields = {"q": q, "qd": qd, "stamp_s": message.stamp_s, "received_s": message.received_s}
    new = {key: getattr(merged, key).copy() for key in fields}
    for key, value in fields.items():
        new[key][into] = value
    return dataclasses.replace(merged, **new), ()


def whole(merged: Merged) -> JointState | None:
    """All joints at once, with the oldest stamps; None before each was heard of."""
    if np.isnan(merged.received_s).any():
        return None
    return JointState(
        stamp_s=float(merged.stamp_s.min()),
        received_s=float(merged.received_s.min()),
        names=merged.names,
        q=merged.q,
        qd=merged.qd,
    )


def unheard(merged: Merged) -> tuple[str, ...]:
    """Joints of which nothing came yet."""
    return tuple(n for n, t in zip(merged.names, merged.received_s, strict=True) if np.isnan(t))


def _doubled(names: Sequence[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))
