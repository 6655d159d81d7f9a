"""What joint states tell of a grasp, and how a run ends by it."""

import numpy as np
import pytest

from robot import execute, grip, limits
from robot.drive import Outcome
from robot.executor import Phase
from robot.film import Film
from robot.trial import motion


def off(**by):
    q = motion().trajectory.q[-1].copy()
    for name, value in by.items():
        q[limits.NAMES.index(f"rh_{name}")] -= value
    return q


@pytest.mark.parametrize(
    ("by", "digits", "held"),
    [
        ({}, (), False),
        ({"FFJ3": 0.02, "THJ5": 0.02}, (), False),
        ({"FFJ3": 0.06, "THJ5": -0.2}, ("first", "thumb"), True),
        ({"FFJ3": 0.06, "MFJ3": 0.06}, ("first", "middle"), False),
        ({"THJ5": 0.2}, ("thumb",), False),
        # The way of a tendon that bends two joints may be shared as the finger likes.
        ({"LFJ2": 0.1, "LFJ1": -0.1, "THJ5": 0.1}, ("thumb",), False),
        ({"LFJ2": 0.1, "THJ1": 0.1}, ("little", "thumb"), True),
    ],
)
def test_digits_that_fall_short(by, digits, held):
    found = grip.pressing(motion().trajectory.q[-1], off(**by))
    assert found == digits
    assert grip.holds(found) is held


@pytest.mark.parametrize(
    ("by", "rise", "ending"),
    [
        ({"FFJ3": 0.06, "THJ5": 0.2}, None, "held, lift not observed"),
        ({}, None, "nothing held"),
        ({"FFJ3": 0.06, "THJ5": 0.2}, 0.0, "not lifted"),
        ({}, 0.1, "lifted"),
    ],
)
def test_an_object_nobody_sees_is_never_called_lifted(by, rise, ending):
    poses = [] if rise is None else [np.eye(7)[0], np.eye(7)[0] + rise * np.eye(7)[6]]
    seen = Film([0.0, 1.0], [off(), off(**by)], poses)
    done = Outcome(Phase.HOLDING, "", True, 1.0, 1)
    found, reason = execute._ending(done, seen, motion())
    assert found == ending
    assert ("nobody sees" in reason) == (rise is None)
    failed = Outcome(Phase.FAULT, "stale", True, 1.0, 1)
    assert execute._ending(failed, seen, motion()) == ("fault", "stale")
    late = Outcome(Phase.IDLE, "refused: the verdict is 3.0 s old, allowed 2.0", True, 1.0, 0)
    assert execute._ending(late, seen, motion()) == ("refused", late.reason)
