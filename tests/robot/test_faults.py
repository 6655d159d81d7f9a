"""Faults: what words mean, and what they do to a joint state."""

import numpy as np
import pytest

from robot import faults
from robot.faults import Fault, FaultError
from robot.interface import JointState

JOINTS = ("ra_elbow_joint", "rh_FFJ3", "rh_FFJ2")
STATE = JointState(5.0, 5.0, JOINTS, np.array([1.0, 2.0, 3.0]), np.zeros(3))


def test_words():
    assert faults.parse("freeze at=2 for=0.5", JOINTS) == Fault("freeze", 2.0, 0.5)
    assert faults.parse("stuck joint=rh_FFJ3", JOINTS, 7.0) == Fault("stuck", 7.0, joint="rh_FFJ3")
    assert faults.parse("death part=hand", JOINTS).part == "hand"
    assert faults.parse("death", JOINTS).part == "arm"
    both, one = (faults.parse(text, JOINTS) for text in ("freeze", "freeze part=hand"))
    for part in ("arm", "hand"):
        assert faults.find([both], "freeze", 1.0, part) is both
    assert faults.find([one], "freeze", 1.0, "hand") is one
    assert faults.find([one], "freeze", 1.0, "arm") is None
    assert faults.parse("jump", JOINTS).by == 0.5
    assert set(faults.KINDS) >= {"delay", "drop", "freeze", "stuck", "abort", "death", "partition"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "known: silent, freeze"),
        ("melt", "no fault 'melt'; known: silent"),
        ("freeze when=2", "has 'when=2'; known: by, at, for, joint, part"),
        ("freeze at=soon", "at is 'soon'; it must be a number"),
        ("freeze at=nan", "at is 'nan'"),
        ("freeze for=0", "for more than 0"),
        ("drop by=1.5", r"by 0\.0 to 1\.0"),
        ("stuck joint=knee", "no joint 'knee'; ra_elbow_joint"),
        ("death part=foot", "no part 'foot'; arm, hand"),
        ("death part=", "no part ''; arm, hand"),
        ("freeze part=foot", "no part 'foot'; arm, hand"),
    ],
)
def test_what_makes_no_sense_is_refused(text, told):
    with pytest.raises(FaultError, match=told):
        faults.parse(text, JOINTS)


def test_when():
    fault = faults.parse("silent at=1 for=2", JOINTS)
    assert [fault.active(t) for t in (0.99, 1.0, 2.99, 3.0)] == [False, True, True, False]
    abort = faults.parse("abort part=hand", JOINTS)
    assert faults.find([fault, abort], "abort", 0.0, "hand") is abort
    assert faults.find([fault, abort], "abort", 0.0, "arm") is None
    assert faults.find([fault, abort], "silent", 0.0) is None


@pytest.mark.parametrize(
    ("text", "names", "q", "stamp"),
    [
        ("nan joint=rh_FFJ3", JOINTS, [1, np.nan, 3], 5.0),
        ("jump by=-0.5", JOINTS, [0.5, 2, 3], 5.0),
        ("duplicate joint=rh_FFJ2", (*JOINTS, "rh_FFJ2"), [1, 2, 3, 3], 5.0),
        ("missing joint=rh_FFJ3", ("ra_elbow_joint", "rh_FFJ2"), [1, 3], 5.0),
        ("clock by=-2", JOINTS, [1, 2, 3], 3.0),
        ("freeze", JOINTS, [1, 2, 3], 5.0),
    ],
)
def test_what_they_do_to_a_state(text, names, q, stamp):
    found = faults.altered(STATE, [faults.parse(text, JOINTS)], 0.0)
    assert found.names == names
    assert found.stamp_s == stamp
    np.testing.assert_array_equal(found.q, q)
    assert len(found.qd) == len(found.names)
    np.testing.assert_array_equal(STATE.q, [1, 2, 3])
