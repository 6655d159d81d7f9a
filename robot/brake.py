"""How a stop brakes: one point, where the joints come to rest, and the seconds until they do.

A controller goes there by a cubic from wherever its joints are when the request comes. Reckoned for
joints that move on for `limits.REACTION_S` until then, a request that is followed at once or after
twice as long asks for no more than the given acceleration: with v the speed, e the error of the
reaction time and b the seconds, the cubic's greatest deceleration is v / b (1 + 6 e / b); with
errors d of the place and w of the speed, at most 6 d / b^2 + 4 w / b more.
"""

import numpy as np
from jaxtyping import Float

from robot import limits


def seconds(
    rate: Float[np.ndarray, "*b"],
    acceleration: Float[np.ndarray, "*b"] | float,
    jerk: Float[np.ndarray, "*b"] | float,
    place_doubt: Float[np.ndarray, "*b"] | float = 0.0,
    rate_doubt: Float[np.ndarray, "*b"] | float = 0.0,
) -> Float[np.ndarray, "*b"]:
    """Least seconds in which a joint may be brought to rest.

    Args:
        rate: Its speed, rad/s.
        acceleration: Its greatest, rad/s^2.
        jerk: Its greatest, rad/s^3: no brake is shorter than acceleration takes to build up.
        place_doubt: Radians d by which it may be elsewhere, ...
        rate_doubt: ... and rad/s w by which it may move otherwise.
    """
    v, a = np.abs(np.asarray(rate, np.float64)), np.asarray(acceleration, np.float64)
    # a b^2 = b (v + 4 w) + 6 (e v + d)
    both = v + 4.0 * np.asarray(rate_doubt, np.float64)
    off = limits.REACTION_S * v + np.asarray(place_doubt, np.float64)
    needed = (both + np.sqrt(both * both + 24.0 * a * off)) / (2.0 * a)
    return np.maximum(needed, a / np.asarray(jerk, np.float64))


def rest(
    q: Float[np.ndarray, " j"],
    qd: Float[np.ndarray, " j"],
    brake_s: float,
    lower: Float[np.ndarray, " j"],
    upper: Float[np.ndarray, " j"],
) -> Float[np.ndarray, " j"]:
    """Where joints (rad) that move at `qd` (rad/s) come to rest within `brake_s`, within limits.

    A joint that is measured beyond a limit stays where it is.
    """
    way = (limits.REACTION_S + 0.5 * brake_s) * np.asarray(qd, np.float64)
    return np.clip(q + way, np.minimum(lower, q), np.maximum(upper, q))
