"""What is known of the robot's joints: states taken in one by one, and none believed blindly."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from robot import limits
from robot.interface import JointState


@dataclass(frozen=True)
class WatchConfig:
    """What a joint state must be to be believed."""

    jump_rad: float = 0.1
    """Most that a joint may move between two states beyond what its greatest speed allows."""
    beyond_rad: float = 0.05
    """Most that a joint may be measured beyond its limits."""
    push: float = 3.0
    """How many times faster than by its own motor, by the URDF, a joint of the hand may move: a
    finger that slips off an edge snaps. The arm's may not."""
    future_s: float = 0.05
    """Most that a state may have come later than now: clocks that are not the same."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of the joints."""

    q: Float[np.ndarray, " 30"]
    """Positions of the last good state, radians, order `limits.NAMES`."""
    qd: Float[np.ndarray, " 30"]
    """Its velocities, rad/s."""
    stamp_s: float
    """When it was, by the sender's clock."""
    came_s: float
    """When it would have come with the least delay seen so far, by this machine's clock: a state
    that is late is old."""
    delay_s: float
    """Least of arrival less stamp so far: the clocks' difference and the link's usual delay."""
    changed_s: Float[np.ndarray, " 2"]
    """`came_s` of the last state in which a value of each of `limits.PARTS` differed from before: a
    driver that repeats itself tells nothing, and the other's values say nothing about it."""


def look(
    seen: Seen | None, joint: JointState | None, now_s: float, config: WatchConfig = WatchConfig()
) -> tuple[Seen | None, str]:
    """Takes in a joint state.

    Args:
        seen: What is known so far.
        joint: The last state that came, new or not.
        now_s: The time, by this machine's clock.
        config: What it must be.

    Returns:
        What is known, unchanged by a state that is not new or not good; and what is wrong with a
        new one, empty where nothing is.
    """
    if joint is None or (seen is not None and joint.stamp_s <= seen.stamp_s):
        return seen, ""  # none, the same again, or overtaken by a later one
    names = tuple(joint.names)
    if names != limits.NAMES:
        twice = sorted({n for n in names if names.count(n) > 1})
        missing = [n for n in limits.NAMES if n not in names]
        if twice or missing:
            return seen, f"joint state: missing {missing or 'none'}, twice {twice or 'none'}"
    q, qd = np.asarray(joint.q, np.float64), np.asarray(joint.qd, np.float64)
    if q.shape != (len(names),) or qd.shape != (len(names),):
        return seen, f"joint state: {len(names)} names, values {q.shape} and {qd.shape}"
    if names != limits.NAMES:
        picked = [names.index(n) for n in limits.NAMES]
        q, qd = q[picked], qd[picked]
    numbers = (joint.stamp_s, joint.received_s)
    bad = np.flatnonzero(~(np.isfinite(q) & np.isfinite(qd)))
    if len(bad) or not np.isfinite(numbers).all():
        where = limits.NAMES[bad[0]] if len(bad) else "its time"
        return seen, f"joint state: {where} is not finite"
    if joint.received_s > now_s + config.future_s:
        return seen, f"joint state from {joint.received_s - now_s:.3f} s in the future"
    off = np.maximum(limits.LOWER - q, q - limits.UPPER)
    if off.max() > config.beyond_rad:
        j = int(off.argmax())
        return seen, f"{limits.NAMES[j]} at {q[j]:.3f} rad, {off[j]:.3f} beyond its limit"
    fast = np.abs(qd) / _greatest(config)
    if fast.max() > 1.0:
        j = int(fast.argmax())
        greatest = _greatest(config)[j]
        return seen, f"{limits.NAMES[j]} at {qd[j]:.3f} rad/s, its greatest {greatest:.3f}"
    delay = joint.received_s - joint.stamp_s
    if seen is None:
        changed = np.full(len(limits.PARTS), joint.received_s)
        return Seen(q, qd, joint.stamp_s, joint.received_s, delay, changed), ""
    passed = joint.stamp_s - seen.stamp_s
    jump = np.abs(q - seen.q) - _greatest(config) * min(passed, 1.0)
    if jump.max() > config.jump_rad:
        j = int(jump.argmax())
        moved = q[j] - seen.q[j]
        return seen, f"{limits.NAMES[j]} jumped by {moved:.3f} rad in {1000 * passed:.0f} ms"
    differs = (q != seen.q) | (qd != seen.qd)
    least = min(delay, seen.delay_s)
    came = joint.received_s - (delay - least)
    changed = np.where([differs[part].any() for part in limits.PARTS], came, seen.changed_s)
    return Seen(q, qd, joint.stamp_s, came, least, changed), ""


def _greatest(config: WatchConfig) -> Float[np.ndarray, " 30"]:
    """Speeds (rad/s) beyond which a joint state is not believed."""
    urdf = 2.0 * limits.MAX_RATE
    return np.concatenate([urdf[limits.ARM], config.push * urdf[limits.ARM.stop :]])
