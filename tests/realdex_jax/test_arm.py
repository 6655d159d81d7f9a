"""The arm against C MuJoCo reading its URDF and Menagerie's model of it, and its own laws."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from realdex_jax import arm

FK_ATOL = 1e-5
"""Metres and matrix entries: single precision over eight links leaves about 2e-7."""
IK_ATOL = 1e-5
"""The same for a pose undone and made again, 4e-6 at most over 20,000 poses."""

# The URDF's rows, written down a second time: parent, child, type, xyz, rpy.
ROWS = (
    ("ra_base_link", "ra_base_link_inertia", None, "0 0 0", "0 0 3.141592653589793"),
    ("ra_base_link_inertia", "ra_shoulder_link", 0, "0 0 0.1807", "0 0 0"),
    ("ra_shoulder_link", "ra_upper_arm_link", 1, "0 0 0", "1.570796327 0 0"),
    ("ra_upper_arm_link", "ra_forearm_link", 2, "-0.6127 0 0", "0 0 0"),
    ("ra_forearm_link", "ra_wrist_1_link", 3, "-0.57155 0 0.17415", "0 0 0"),
    ("ra_wrist_1_link", "ra_wrist_2_link", 4, "0 -0.11985 -2.458e-11", "1.570796327 0 0"),
    (
        "ra_wrist_2_link",
        "ra_wrist_3_link",
        5,
        "0 0.11655 -2.390e-11",
        "1.570796326589793 3.141592653589793 3.141592653589793",
    ),
    ("ra_wrist_3_link", "ra_flange", None, "0 0 0", "0 -1.5707963267948966 -1.5707963267948966"),
    (
        "ra_flange",
        "rh_forearm",
        None,
        "0 0 0",
        "1.5707963267948966 3.141592653589793 1.5707963267948966",
    ),
    ("rh_forearm", "rh_wrist", None, "0 -0.01 0.21301", "0 0 0"),
    ("rh_wrist", "rh_palm", None, "0 0 0.034", "0 0 0"),
)
# Menagerie's link origins lie elsewhere on the joint axes: by the offsets (m) of the meshes in the
# URDF.
ALONG_AXIS = (0.0, 0.1762, 0.0393, -0.135, -0.12, -0.1168)


def _random(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(arm.LOWER, arm.UPPER, (count, 6)).astype(np.float32)


def _urdf() -> str:
    inertial = (
        '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/>'
        "</inertial>"
    )
    names = [ROWS[0][0], *(row[1] for row in ROWS)]
    text = "".join(f'<link name="{n}">{inertial}</link>' for n in names)
    for parent, child, joint, xyz, rpy in ROWS:
        name, kind = (f"{child}_fixed", "fixed") if joint is None else (arm.JOINTS[joint], "")
        text += (
            f'<joint name="{name}" type="{kind or "revolute"}"><parent link="{parent}"/>'
            f'<child link="{child}"/><origin xyz="{xyz}" rpy="{rpy}"/><axis xyz="0 0 1"/>'
            '<limit lower="-6.2" upper="6.2" effort="1" velocity="1"/></joint>'
        )
    compiler = '<mujoco><compiler fusestatic="false"/></mujoco>'
    return f'<robot name="arm">{compiler}{text}</robot>'


def _menagerie(shared, meshes: bool):
    path = shared / "data" / "menagerie" / "universal_robots_ur10e" / "ur10e.xml"
    if not path.is_file():
        pytest.skip("no reference arm at ../shared/data/menagerie/universal_robots_ur10e")
    spec = mujoco.MjSpec.from_file(str(path))
    drop = {"upperarm_2"} if meshes else {m.name for m in spec.meshes}  # upperarm_2.obj is empty
    for geom in list(spec.geoms):
        if geom.meshname in drop:
            spec.delete(geom)
    for name in drop:
        spec.delete(spec.mesh(name))
    return spec.compile()


def _vertices(model, geom: int) -> np.ndarray:
    mesh = model.geom_dataid[geom]
    first = model.mesh_vertadr[mesh]
    return model.mesh_vert[first : first + model.mesh_vertnum[mesh]]


def _pose_error(q, R, p) -> np.ndarray:
    R_found, p_found = jax.jit(arm.palm_pose)(q)
    p_error = jnp.abs(p_found - p[..., None, :]).max(-1)
    return np.asarray(jnp.maximum(p_error, jnp.abs(R_found - R[..., None, :, :]).max((-1, -2))))


def _turn(a, b) -> np.ndarray:
    """Angle differences, modulo full turns."""
    return np.abs((np.asarray(a, float) - np.asarray(b, float) + np.pi) % (2 * np.pi) - np.pi)


def test_agrees_with_c_mujoco_reading_the_urdf():
    model = mujoco.MjModel.from_xml_string(_urdf())
    data = mujoco.MjData(model)
    address = [model.joint(n).qposadr[0] for n in arm.JOINTS]
    q = _random(300)
    links = jax.jit(arm.forward)(q)
    R_palm, p_palm = jax.jit(arm.palm_pose)(q)
    for i in range(len(q)):
        data.qpos[address] = q[i]
        mujoco.mj_kinematics(model, data)
        bodies = [model.body(n).id for n in arm.LINKS[1:]]
        np.testing.assert_allclose(links.p[i, 1:], data.xpos[bodies], atol=FK_ATOL)
        R = data.xmat[bodies].reshape(-1, 3, 3)
        np.testing.assert_allclose(links.R[i, 1:], R, atol=FK_ATOL)
        palm = model.body("rh_palm").id
        np.testing.assert_allclose(p_palm[i], data.xpos[palm], atol=FK_ATOL)
        np.testing.assert_allclose(R_palm[i], data.xmat[palm].reshape(3, 3), atol=FK_ATOL)


def test_agrees_with_menageries_arm(shared):
    model = _menagerie(shared, meshes=False)
    assert [f"ra_{model.joint(j).name}" for j in range(6)] == list(arm.JOINTS)
    np.testing.assert_allclose(model.jnt_range, np.stack([arm.LOWER, arm.UPPER], 1), atol=1e-3)
    data = mujoco.MjData(model)
    bodies = [model.body(n[3:]).id for n in arm.LINKS[1:7]]

    def reference(q) -> tuple[np.ndarray, np.ndarray]:
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        R_world_base = data.xmat[model.body("base").id].reshape(3, 3)
        R = R_world_base.T @ data.xmat[bodies].reshape(-1, 3, 3)
        return R, data.xpos[bodies] @ R_world_base

    zero = arm.forward(jnp.zeros(6))
    R_theirs_ours = np.swapaxes(reference(np.zeros(6))[0], 1, 2) @ np.asarray(zero.R[1:7])
    q = _random(200)
    links = jax.tree.map(np.asarray, arm.forward(jnp.asarray(q)))
    for i in range(len(q)):
        R, p = reference(q[i])
        np.testing.assert_allclose(links.R[i, 1:7], R @ R_theirs_ours, atol=FK_ATOL)
        moved = links.p[i, 1:7] + links.R[i, 1:7, :, 2] * np.array(ALONG_AXIS)[:, None]
        # Menagerie rounds lengths to millimetres: 0.3 to 0.6 mm each, at most 2 mm together.
        np.testing.assert_allclose(moved, p, atol=2e-3)


def test_the_outstretched_arm_is_where_the_released_urdf_has_it():
    links = arm.forward(jnp.zeros(6))
    np.testing.assert_allclose(links.p[-1], [1.1842, 0.2907, 0.0608], atol=1e-4)  # as printed
    np.testing.assert_allclose(links.R[-1, :, 2], [0, 1, 0], atol=FK_ATOL)
    np.testing.assert_allclose(links.R[-2].T @ links.R[-1], np.diag([-1, -1, 1]), atol=FK_ATOL)


def test_every_reachable_branch_makes_the_pose():
    q = jnp.asarray(_random(5000))
    R, p = arm.palm_pose(q)
    found, reachable = jax.jit(arm.inverse)(R, p)
    assert found.shape == (5000, 8, 6)
    assert bool(jnp.isfinite(found).all())
    assert float(jnp.abs(found).max()) <= np.float32(np.pi)
    assert bool(reachable.any(-1).all())
    assert _pose_error(found, R, p)[np.asarray(reachable)].max() < IK_ATOL


def test_some_branch_is_the_angles_that_made_the_pose():
    q = jnp.asarray(_random(5000, seed=1))
    links = arm.forward(q)
    # Where two branches meet, angles are known to the square root of single precision only.
    away = jnp.linalg.norm(links.p[:, 5, :2], axis=-1)
    apart = (jnp.abs(jnp.sin(q[:, jnp.array([2, 4])])) > 0.1).all(-1) & (away > 0.19)
    assert float(apart.mean()) > 0.7
    found, reachable = jax.jit(arm.inverse)(*arm.palm_pose(q))
    error = np.where(reachable, _turn(found, q[:, None]).max(-1), np.inf).min(-1)
    assert error[np.asarray(apart)].max() < 1e-4  # radians; 1e-5 at most over 20,000 poses


def test_the_branches_differ():
    q = jnp.array([0.3, -1.2, 1.4, -0.8, 1.1, 0.4])
    found, reachable = arm.inverse(*arm.palm_pose(q))
    assert bool(reachable.all())
    for a in range(8):
        for b in range(a):
            assert _turn(found[a], found[b]).max() > 0.1


@pytest.mark.parametrize(
    "q",
    [
        [0, 0, 0, 0, 0, 0],  # stretched, wrist aligned
        [0.4, -1.0, 1.2, 0.3, 0, 0.5],
        [0.4, -1.0, 1.2, 0.3, np.pi, 0.5],
        [0.4, -1.0, 1.2, 0.3, 1e-7, 0.5],
        [0.4, -1.0, 0, 0.3, 1.0, 0.5],
        [0.4, -1.0, np.pi, 0.3, 1.0, 0.5],  # folded
        [0.4, -np.pi / 2, 0, -np.pi / 2, 1.0, 0.5],  # upright: joint 5 is d4 from the first axis
    ],
)
def test_singular_poses_are_reached(q):
    R, p = arm.palm_pose(jnp.array(q, jnp.float32))
    found, reachable = arm.inverse(R, p)
    assert bool(jnp.isfinite(found).all())
    assert bool(reachable.any())
    # The slack of the reach adds its 1e-5 m.
    assert _pose_error(found, R, p)[np.asarray(reachable)].max() < IK_ATOL + 2 * arm.SLACK


@pytest.mark.parametrize(
    "p",
    [
        [2.0, 0.0, 0.3],  # too far
        [0.0, 0.0, 0.0],  # wrist 2 would be within the shoulder's own offset
        [np.inf, 0, 0],
    ],
)
def test_poses_out_of_reach_are_flagged(p):
    R, p = jnp.eye(3), jnp.array(p, jnp.float32)
    found, reachable = arm.inverse(R, p)
    assert not bool(reachable.any())
    if bool(jnp.isfinite(p).all()):
        assert bool(jnp.isfinite(found).all())


def test_the_edge_of_the_reach_is_sharp():
    # Along the outstretched arm: a millimetre further cannot be reached, a millimetre nearer can.
    R, p = arm.palm_pose(jnp.zeros(6))
    for shift, expected in ((-1e-3, True), (1e-3, False)):
        _, reachable = arm.inverse(R, p + jnp.array([shift, 0, 0]))
        assert bool(reachable.any()) is expected


def test_batching_is_the_loop_and_jit_changes_nothing():
    q = jnp.asarray(_random(6).reshape(2, 3, 6))
    links = jax.jit(arm.forward)(q)
    assert links.R.shape == (2, 3, 8, 3, 3)
    ends = arm.capsules(links)
    R, p = arm.palm_pose(q)
    found, reachable = jax.jit(arm.inverse)(R, p)
    for index in np.ndindex(2, 3):
        one = arm.forward(q[index])
        np.testing.assert_allclose(links.p[index], one.p, atol=1e-6)
        np.testing.assert_allclose(links.R[index], one.R, atol=1e-6)
        np.testing.assert_allclose(ends[0][index], arm.capsules(one)[0], atol=1e-6)
        q_one, reachable_one = arm.inverse(R[index], p[index])
        np.testing.assert_array_equal(reachable[index], reachable_one)
        assert _turn(found[index], q_one).max() < 1e-4  # angles magnify rounding near singularities


def test_gradient_is_the_finite_difference():
    weight = jax.random.normal(jax.random.key(0), (8, 3))

    def height(q):
        links = arm.forward(q)
        return (links.p * weight).sum() + (links.R[..., 0] * weight).sum()

    q = jnp.asarray(_random(1)[0])
    gradient = jax.jit(jax.grad(height))(q)
    step = 1e-2  # single precision: central differences are best near the cube root of epsilon
    for j in range(6):
        e = step * jnp.eye(6)[j]
        difference = (height(q + e) - height(q - e)) / (2 * step)
        np.testing.assert_allclose(gradient[j], difference, atol=5e-4)


def _sweep(start, turn, frames: int = 60) -> jnp.ndarray:
    """Smooth joint paths from `start` by `turn`, minimum jerk."""
    s = np.linspace(0, 1, frames)[:, None]
    s = s**3 * (10 - 15 * s + 6 * s**2)
    return jnp.asarray(np.array(start) + s * np.array(turn), jnp.float32)


def test_a_smooth_path_is_tracked_without_jumps():
    # Joints 1 and 6 pass half a turn, where angles wrap.
    q = _sweep([2.6, -1.4, 1.5, -0.9, 1.2, 2.5], [1.2, 0.4, 0.5, -0.6, 0.5, 2.0])
    R, p = arm.palm_pose(q)
    found, reachable = jax.jit(arm.track)(R, p)
    assert bool(reachable)
    assert (np.abs(found) <= arm.UPPER + 1e-5).all()
    step = jnp.abs(jnp.diff(found, axis=0)).max()
    # No worse than the path that made it: that one, or its flip, is among the eight.
    assert float(step) <= float(jnp.abs(jnp.diff(q, axis=0)).max()) + 1e-3
    assert _pose_error(found[:, None], R, p).max() < IK_ATOL


def test_tracks_of_a_batch_are_those_of_the_loop():
    q = jnp.stack([_sweep([a, -1.4, 1.5, -0.9, 1.2, 0.3], [0.5] * 6) for a in (0.0, 1.0, 3.0)])
    R, p = arm.palm_pose(q)
    p = p.at[1, 30].add(jnp.array([3.0, 0.0, 0.0]))
    found, reachable = jax.jit(arm.track)(R, p)
    np.testing.assert_array_equal(reachable, [True, False, True])
    assert bool(jnp.isfinite(found).all())
    for i in (0, 2):
        one, _ = arm.track(R[i], p[i])
        np.testing.assert_allclose(found[i], one, atol=1e-4)


def test_a_path_that_leaps_or_winds_up_is_flagged():
    q = _sweep([0.3, -1.4, 1.5, -0.9, 1.2, 0.3], [0.5] * 6)
    leap = jnp.concatenate([q[:30], q[30:] + jnp.array([1.0, 0, 0, 0, 0, 0])])
    assert not bool(arm.track(*arm.palm_pose(leap))[1])
    # Two turns of the last joint fit into its limits, wherever they begin; three do not.
    for turns, expected in ((1.9, True), (3.0, False)):
        wound = _sweep([0.3, -1.4, 1.5, -0.9, 1.2, 0.3], [0, 0, 0, 0, 0, 2 * np.pi * turns], 150)
        found, reachable = arm.track(*arm.palm_pose(wound))
        assert bool(reachable) is expected, turns
        assert np.abs(np.diff(found, axis=0)).max() < arm.MAX_STEP


def test_a_single_frame_is_a_path():
    R, p = arm.palm_pose(jnp.array([[0.3, -1.4, 1.5, -0.9, 1.2, 0.3]]))
    found, reachable = arm.track(R, p)
    assert bool(reachable)
    assert found.shape == (1, 6)


def _outside(p, ends, of=slice(None)) -> float:
    """Metres by which points stand out of the capsules."""
    p_a, p_b, radius = (np.asarray(x)[of] for x in ends)
    axis = p_b - p_a
    offset = p[:, None] - p_a
    along = np.clip((offset * axis).sum(-1) / (axis**2).sum(-1), 0, 1)
    return (np.linalg.norm(offset - along[..., None] * axis, axis=-1) - radius).min(1).max()


def test_capsules_cover_the_meshes(shared):
    model = _menagerie(shared, meshes=True)
    data = mujoco.MjData(model)
    q = np.array([0.4, -1.1, 1.3, -0.7, 1.0, 0.6])
    data.qpos[:] = q
    mujoco.mj_kinematics(model, data)
    R_world_base = data.xmat[model.body("base").id].reshape(3, 3)
    ends = arm.capsules(arm.forward(jnp.asarray(q, jnp.float32)))
    seen = 0
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
        p_world = _vertices(model, geom)[::7] @ data.geom_xmat[geom].reshape(3, 3).T
        p = (p_world + data.geom_xpos[geom]) @ R_world_base
        # 6 mm at the rims of flat ends, and 2 mm of Menagerie's own rounding.
        assert _outside(p, ends) < 8e-3, model.geom(geom).name
        seen += len(p)
    assert seen > 10_000


def test_capsules_cover_the_hands_forearm(shared):
    path = shared / "data" / "menagerie" / "shadow_hand" / "right_hand.xml"
    if not path.is_file():
        pytest.skip("no reference hand at ../shared/data/menagerie/shadow_hand")
    model = mujoco.MjModel.from_xml_path(str(path))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    body = model.body("rh_forearm").id
    links = arm.forward(jnp.zeros(6))
    R_base_forearm, p_base_forearm = np.asarray(links.R[-1]), np.asarray(links.p[-1])
    ends = arm.capsules(links)
    own = np.array([arm.LINKS[link] == "rh_forearm" for link in arm.CAPSULE_LINK])
    # Menagerie turns the forearm's frame by a quarter: its wrist is at +x, the URDF's at -y.
    R_ours_theirs = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    wrist = R_ours_theirs @ model.body("rh_wrist").pos
    np.testing.assert_allclose(wrist, [0, -0.01, 0.21301], atol=1e-6)
    for geom in np.flatnonzero(model.geom_bodyid == body):
        if model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        p_world = _vertices(model, geom) @ data.geom_xmat[geom].reshape(3, 3).T
        p_world = p_world + data.geom_xpos[geom] - data.xpos[body]
        p = p_world @ data.xmat[body].reshape(3, 3) @ R_ours_theirs.T
        p = p @ R_base_forearm.T + p_base_forearm
        assert _outside(p, ends, own) < 6e-3


def test_capsules_move_with_their_links():
    q = jnp.asarray(_random(3))
    zero, moved = arm.forward(jnp.zeros(6)), arm.forward(q)
    for at_zero, at_q in zip(arm.capsules(zero)[:2], arm.capsules(moved)[:2], strict=True):
        for c, link in enumerate(arm.CAPSULE_LINK):
            p_link = zero.R[link].T @ (at_zero[c] - zero.p[link])
            expected = moved.R[:, link] @ p_link + moved.p[:, link]
            np.testing.assert_allclose(at_q[:, c], expected, atol=1e-6)
