"""Presets: those that come with the project hold together, bad ones are refused by name."""

import copy
import tomllib

import pytest

from robot import presets
from robot.presets import PresetError


@pytest.mark.parametrize("name", ["shadow_ur10e", "plain_ur", "simulated"])
def test_the_presets_that_come_with_it(name):
    preset = presets.read(name)
    assert preset.joints == (*presets.PARTS["arm"], *presets.PARTS["hand"])
    assert len(set(preset.our_names())) == 30
    simulated = name == "simulated"
    before = presets.SIMULATED if simulated else "/"
    assert preset.part("hand").topic == f"{before}rh_trajectory_controller/joint_trajectory"
    assert all(topic.startswith(before) for topic in preset.topics)
    assert preset.part("hand").hold == "commanded"
    theirs = "shoulder_pan_joint" if name == "plain_ur" else "ra_shoulder_pan_joint"
    assert preset.our_names()[theirs] == "ra_shoulder_pan_joint"
    # What a real robot cannot know, only the simulated one is told.
    assert bool(preset.orders) == preset.local == simulated
    if simulated:
        assert presets.read_simulated(name) == preset
    else:
        with pytest.raises(PresetError, match=f"{name} is no simulated robot: local is false"):
            presets.read_simulated(name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("local = true", "local = false"),
        ('"/realdex_sim/joint_states"', '"/realdex_sim/joint_states", "/joint_states"'),
        ("/realdex_sim/heartbeat", "/realdex/heartbeat"),
        ("/realdex_sim/reports", "/reports"),
        ("/realdex_sim/orders", "/realdex_simulated/orders"),
        ("/realdex_sim/object_pose", "/object_pose"),
        ("/realdex_sim/scaled_joint", "/scaled_joint"),
        ("/realdex_sim/rh_trajectory", "/rh_trajectory"),
    ],
)
def test_a_simulated_robot_has_no_topic_of_a_real_one(tmp_path, ours, theirs):
    text = presets.FILE.read_text()
    assert text.count(ours) == 1
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(ours, theirs))
    assert presets.read("simulated", path)
    with pytest.raises(PresetError, match="simulated is no simulated robot") as refused:
        presets.read_simulated("simulated", path)
    assert theirs.split('"')[-2 if '"' in theirs else 0].replace(" =", " is") in str(refused.value)


def test_an_arm_alone_and_other_names():
    table = tomllib.loads(presets.FILE.read_text())["plain_ur"]
    del table["hand"]
    table["arm"]["rename"] = {"ra_elbow_joint": "my_elbow"}
    preset = presets.preset("mine", table)
    assert preset.joints == presets.PARTS["arm"]
    assert preset.our_names()["my_elbow"] == "ra_elbow_joint"
    with pytest.raises(PresetError, match="no part 'hand'; it has arm"):
        preset.part("hand")


BAD = [
    ("joint_stats", ["/a"], r"unknown joint_stats; known: joint_states"),
    ("joint_states", [], "must be a list of topics"),
    ("joint_states", ["a b"], "'a b'; a name of ROS"),
    ("heartbeat", 3, "heartbeat is 3"),
    ("local", "yes", "local is 'yes'"),
    ("local", 1, "local is 1"),
    ("states_qos", "best", "states_qos is 'best'; it must be one of"),
    ("depth", 0, "depth is 0; it must be 1 to 1000"),
    ("depth", 2.5, "whole number"),
    ("depth", True, "whole number"),
    ("lost_s", float("nan"), "lost_s is nan"),
    ("brake_s", 60.0, "brake_s is 60.0; it must be 0.02 to 2.0"),
    ("arm", 1, "arm is 1; it must be a table"),
    ("arm.controller", "ur", "'ur'; a name of ROS"),
    ("arm.prefix", "ra/", "prefix is 'ra/'"),
    ("arm.hold", "gently", "hold is 'gently'"),
    ("arm.deceleration", -1.0, "deceleration is -1.0"),
    ("arm.rename", {"elbow": "e"}, "unknown elbow; known: ra_shoulder_pan_joint"),
    ("arm.rename", {"ra_elbow_joint": "a b"}, "'a b'; that is no joint's name"),
    ("arm.rename", {"ra_elbow_joint": "rh_FFJ3"}, "named twice: rh_FFJ3"),
    ("sources", 0, "sources is 0; it must be 1 to 10"),
    ("arm.controller", "/realdex_sim/rh_trajectory_controller", "arm and hand have one controller"),
]


@pytest.mark.parametrize(("key", "value", "told"), BAD)
def test_bad_values_are_refused_by_name(key, value, told):
    table = copy.deepcopy(tomllib.loads(presets.FILE.read_text())["simulated"])
    inner, _, last = key.rpartition(".")
    (table[inner] if inner else table)[last] = value
    with pytest.raises(PresetError, match=told):
        presets.preset("mine", table)


@pytest.mark.parametrize("key", ["controller", "prefix", "hold", "deceleration"])
def test_what_a_part_needs(key):
    table = tomllib.loads(presets.FILE.read_text())["simulated"]
    del table["arm"][key]
    with pytest.raises(PresetError, match=f"arm has no {key}"):
        presets.preset("mine", table)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "p.toml"
    with pytest.raises(PresetError, match="No such file"):
        presets.read("simulated", path)
    for content in (b"\xff\xfe", b"[a", b"a = " + b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(PresetError, match="not a file of presets"):
            presets.read("simulated", path)
    path.write_text("a = 1\n[b]\n")
    with pytest.raises(PresetError, match="no preset 'c'; it has a, b"):
        presets.read("c", path)
    with pytest.raises(PresetError, match="a preset is a table"):
        presets.read("a", path)
    with pytest.raises(PresetError, match="neither arm nor hand"):
        presets.read("b", path)
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(PresetError, match="at most"):
        presets.read("a", path)
