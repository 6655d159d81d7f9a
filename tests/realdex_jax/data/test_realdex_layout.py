"""Names, splits and frames of the release."""

import jax.numpy as jnp
import jaxlie
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import realdex_layout as layout
from realdex_jax.data import splits
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints, kinematics
from realdex_jax.hand.load import load


def test_there_are_53_objects_and_the_splits_name_only_these():
    assert len(layout.OBJECTS) == len(set(layout.OBJECTS)) == 53
    for rule in layout.SPLITS.values():
        assert {name for part in rule.values() for name in part} <= set(layout.OBJECTS)


def test_rules_of_splitting_share_no_object():
    sizes = {"release": (41, 6, 6), "release-training": (6, 3, 3), "paper": (41, 6, 6)}
    for rule in layout.RULES:
        parts = layout.splits(layout.OBJECTS, rule)
        splits.check(parts)
        assert tuple(map(len, parts.values())) == sizes[rule]
    test = layout.splits(layout.OBJECTS, "release")["test"]
    assert {"mildew_remover", "daily_moisturizing_lotion"} <= set(test)  # misspelt in the release
    some = layout.splits(("soba", "yogurt", "own_cup"), "release")
    assert some == {"train": ("soba", "own_cup"), "val": ("yogurt",), "test": ()}
    # An object is in the same part whatever else was downloaded; objects of one's own train.
    everything = layout.splits(layout.OBJECTS, "paper")
    for rng in map(np.random.default_rng, range(20)):
        names = (*rng.permutation(layout.OBJECTS)[: rng.integers(1, 53)].tolist(), "own_cup")
        for rule in ("release", "paper"):
            every = layout.splits(layout.OBJECTS, rule)
            parts = layout.splits(names, rule)
            assert "own_cup" in parts["train"]
            assert {part: set(members) - {"own_cup"} for part, members in parts.items()} == {
                part: set(members) & set(names) for part, members in every.items()
            }
    assert splits.by_object(layout.OBJECTS, 0) == everything
    with pytest.raises(DatasetError, match="known: release, release-training, paper"):
        layout.splits(("soba",), "half")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("duck_toy_1_20231207", "duck_toy"),
        ("duck_toy_12", "duck_toy"),
        ("laundry_detergent_pods_3", "laundry_detergent_pods"),
        ("midew_remover_2", "mildew_remover"),
        ("box", "box"),
        ("cup_7_2023", "cup_7"),  # a year is no date
    ],
)
def test_object_of_a_recording(folder, name):
    assert layout.object_of(folder) == name


def test_recordings_and_sequences_are_found_at_any_depth():
    names = (
        "box/storage/bags/box/box_1_20231207/final_data.npy",
        "box/storage/bags/box/box_1_20231207/TF/a-b.txt",
        "box/10.npz",
        "box/9.npz",
        "grasps/box.npz",
        "box/00000.npz",
        "final_data.npy",
    )
    found = layout.find(names, "sprite_2")
    assert [(f.object, f.kind, f.name) for f in found] == [
        ("box", "recording", "box/storage/bags/box/box_1_20231207"),
        ("box", "sequence", "box/9.npz"),
        ("box", "sequence", "box/10.npz"),
        ("sprite", "recording", "."),
    ]


def test_folders_are_listed_without_pictures_and_without_going_round(tmp_path):
    for name in ("a/final_data.npy", "a/cam0/rgb/1.png", "a/merged_pcd/1.ply", "a/.x/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert layout.files(tmp_path).names == ("a/final_data.npy",)
    with pytest.raises(DatasetError, match="neither a folder nor a"):
        layout.files(tmp_path / "absent")


def test_palm_and_forearm_undo_each_other(rng):
    R = Rotation.random(50, rng=rng)
    p, wrist = rng.normal(size=(50, 3)), rng.uniform(-0.6, 0.5, (50, 2))
    back = layout.forearm(*layout.palm(R, p, wrist), wrist)
    assert (back[0] * R.inv()).magnitude().max() < 1e-12
    np.testing.assert_allclose(back[1], p, atol=1e-12)


def test_palm_follows_from_the_urdf_chain(rng):
    # The chain of the URDF written once more, with another library.
    R, p, wrist = Rotation.random(rng=rng), rng.normal(size=(1, 3)), np.array([[-0.3, 0.2]])
    T = jaxlie.SE3.from_rotation_and_translation(
        jaxlie.SO3.from_matrix(jnp.asarray(R.as_matrix())), jnp.asarray(p[0])
    )
    for xyz, turn in (
        ((0.0, -0.01, 0.21301), jaxlie.SO3.from_y_radians(-0.3)),
        ((0.0, 0.0, 0.034), jaxlie.SO3.from_x_radians(0.2)),
    ):
        T = T @ jaxlie.SE3.from_rotation_and_translation(turn, jnp.array(xyz))
    R_palm, p_palm = layout.palm(Rotation.concatenate([R]), p, wrist)
    np.testing.assert_allclose(R_palm.as_matrix()[0], T.rotation().as_matrix(), atol=1e-6)
    np.testing.assert_allclose(p_palm[0], T.translation(), atol=1e-6)  # float32


def test_mean_pose_of_the_release_reaches_where_its_objects_lie():
    # Statistics shipped with the release; as a palm pose it would end 0.25 m short of the objects.
    R = Rotation.from_rotvec([[1.664658, 0.631876, 1.632260]])
    R_palm, p_palm = layout.palm(R, np.array([[0.9603, 0.017366, 1.019586]]), np.zeros((1, 2)))
    np.testing.assert_allclose(p_palm[0], [1.21, -0.01, 1.02], atol=0.01)
    hand = load("shadow")
    tips = kinematics.keypoints(hand, kinematics.forward(hand, jnp.zeros(22)))[-5:]
    middle = p_palm + R_palm.apply(np.asarray(tips[joints.FINGERS.index("MF")], np.float64))
    np.testing.assert_allclose(middle[0], [1.40, -0.03, 1.04], atol=0.01)
