import importlib.util
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from benchmarks import kinematics, peers, timing
from realdex_jax.hand import joints, load


def test_the_urdf_is_the_same_tree() -> None:
    hand = load.load()
    robot = ElementTree.fromstring(kinematics.urdf(hand))
    assert [link.get("name") for link in robot.findall("link")] == list(hand.link_names)
    found = {joint.get("name"): joint for joint in robot.findall("joint")}
    assert set(found) == set(joints.NAMES)
    child = found["THJ1"].find("child")
    assert child is not None
    assert child.get("link") == "thdistal"


def test_ours_and_mjx_put_every_link_at_the_same_place(rng: np.random.Generator) -> None:
    hand = load.load()
    q = rng.uniform(joints.LOWER, joints.UPPER, (32, 22)).astype(np.float32)
    ours, peer = (make(hand, q)[1]() for make in (kinematics._ours, kinematics._mjx))
    assert np.abs(ours - peer).max() < kinematics.AGREEMENT


@pytest.mark.skipif(
    importlib.util.find_spec("pytorch_kinematics") is None, reason="the bench extra is not there"
)
@pytest.mark.filterwarnings("ignore")
def test_the_peer_on_our_urdf_agrees(rng: np.random.Generator) -> None:
    hand = load.load()
    q = rng.uniform(joints.LOWER, joints.UPPER, (16, 22)).astype(np.float32)
    ours, peer = (make(hand, q)[1]() for make in (kinematics._ours, kinematics._pytorch))
    assert np.abs(ours - peer).max() < kinematics.AGREEMENT


def test_calls_take_turns() -> None:
    order: list[str] = []
    timings = timing.time_calls(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 10, repeats=2, warm_up=1
    )
    assert "".join(order) == "ababab"
    assert [t.name for t in timings] == ["a", "b"]
    assert all(t.per_second > 0 for t in timings)


def test_without_the_peer_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_kinematics", None)
    with pytest.raises(peers.MissingPeerError, match=r"\.\[bench\]"):
        kinematics._pytorch(load.load(), np.zeros((1, 22), np.float32))
