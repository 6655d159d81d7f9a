"""Joint states from several publishers as one."""

import re

import numpy as np
import pytest

from robot import merging
from robot.interface import JointState

OURS = {"A": "a", "B": "b", "C": "c"}


def message(names, q, stamp=1.0, received=10.0, qd=None):
    q = np.array(q, float)
    return JointState(
        stamp, received, tuple(names), q, q * 0 if qd is None else np.array(qd, float)
    )


def test_parts_make_a_whole_with_the_oldest_stamps():
    merged = merging.init(("a", "b", "c"))
    assert merging.whole(merged) is None
    merged, wrong = merging.take(merged, message("CxA", [3, 9, 1], 5.0, 50.0), OURS)
    assert wrong == ()
    assert merging.whole(merged) is None
    assert merging.unheard(merged) == ("b",)
    merged, _ = merging.take(merged, message("B", [2], 4.0, 51.0, [0.5]), OURS)
    state = merging.whole(merged)
    assert state.names == ("a", "b", "c")
    np.testing.assert_array_equal(state.q, [1, 2, 3])
    np.testing.assert_array_equal(state.qd, [0, 0.5, 0])
    assert (state.stamp_s, state.received_s) == (4.0, 50.0)


def test_a_record_once_given_never_changes():
    merged, _ = merging.take(merging.init(("a",)), message("A", [1]), OURS)
    before = merging.whole(merged)
    merging.take(merged, message("A", [2], 2.0), OURS)
    np.testing.assert_array_equal(before.q, [1])


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (message("AA", [1, 2], 2.0), "name A twice"),
        (message("AB", [1, np.nan], 2.0), "state of b is not finite"),
        (message("AB", [1, 2], 2.0, qd=[0, np.inf]), "state of b is not finite"),
        (message("AB", [1, 2], 0.75), r"go back by 0\.250 s"),
    ],
)
def test_a_wrong_message_is_passed_over_as_a_whole(bad, told):
    merged, _ = merging.take(merging.init(("a", "b")), message("AB", [7, 8]), OURS)
    after, wrong = merging.take(merged, bad, OURS)
    assert after is merged
    assert len(wrong) == 1
    assert re.search(told, wrong[0])


def test_joints_of_others_are_no_business_of_ours():
    merged = merging.init(("a",))
    assert merging.take(merged, message("xy", [1, np.nan]), OURS) == (merged, ())
