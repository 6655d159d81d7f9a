"""DexGraspNet's files: conventions, errors, and the real sample."""

import copy

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import dexgraspnet
from realdex_jax.errors import DatasetError, MeshError
from realdex_jax.hand import joints

TETRAHEDRA = """o a
v 0 0 0
v 1 0 0
v 0 1 0
v 0 0 1
f 1 3 2
f 1 2 4
f 1 4 3
f 2 3 4
o b
v 2 0 0
v 3 0 0
v 2 1 0
v 2 0 1
f -4 -2 -3
f -4 -3 -1
f 5//1 8//2 7//1
f 6/1/1 7/1/1 8/1/1
"""


def record(rng, scale=0.08):
    values = rng.uniform(0, 0.2, 28)
    keys = (*joints.DEXGRASPNET_NAMES, *dexgraspnet.EULER, *dexgraspnet.TRANSLATION)
    return {"scale": scale, "qpos": dict(zip(keys, values.tolist(), strict=True))}


def write(root, records, mesh=TETRAHEDRA, code="core-thing-1"):
    (root / "dataset").mkdir(parents=True, exist_ok=True)
    np.save(root / "dataset" / f"{code}.npy", np.array(records, dtype=object), allow_pickle=True)
    folder = root / "meshdata" / code / "coacd"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "decomposed.obj").write_text(mesh)
    return code


def test_conventions(rng):
    one = record(rng)
    scale, phi = dexgraspnet.parse([one], "test")
    q = one["qpos"]
    assert scale[0] == 0.08
    assert phi[0, joints.NAMES.index("FFJ4")] == pytest.approx(-q["robot0:FFJ3"])
    assert phi[0, joints.NAMES.index("RFJ4")] == pytest.approx(q["robot0:RFJ3"])
    assert phi[0, joints.NAMES.index("THJ1")] == pytest.approx(-q["robot0:THJ0"])
    assert phi[0, 22:25] == pytest.approx([q["WRJTx"], q["WRJTy"], q["WRJTz"]])
    x, y, z = (Rotation.from_euler(axis, q[f"WRJR{axis}"]).as_matrix() for axis in ("x", "y", "z"))
    assert np.allclose(Rotation.from_rotvec(phi[0, 25:]).as_matrix(), z @ y @ x, atol=1e-6)


def test_sizes_are_grouped_after_rounding(tmp_path, rng):
    records = [record(rng, s) for s in (0.06, 0.1 + 1e-9, 0.06 + 3e-10, 0.1)]
    code = write(tmp_path, records)
    small, large = dexgraspnet.read(tmp_path, code)
    assert (small.scale, large.scale) == (0.06, 0.1)
    assert len(small.grasps) == len(large.grasps) == 2
    assert len(small.shape.pieces) == 2
    assert small.shape.bounds[1] == pytest.approx([0.18, 0.06, 0.06])
    assert small.shape.volume == pytest.approx(2 * 0.06**3 / 6)
    assert small.shape.name != large.shape.name
    assert small.shape.category == "thing"


def test_angles_beyond_limits_are_reported(tmp_path, rng):
    one = record(rng)
    one["qpos"]["robot0:FFJ1"] = 1.6708
    code = write(tmp_path, [record(rng), one])
    grasps = dexgraspnet.read(tmp_path, code)[0].grasps
    assert grasps.columns["beyond_limits"][1] == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("scale"), "'scale' and 'qpos'"),
        (lambda r: r["qpos"].pop("WRJTx"), "misses WRJTx"),
        (lambda r: r["qpos"].update({"WRJTx": float("nan")}), "WRJTx is nan"),
        (lambda r: r["qpos"].update({"robot0:FFJ0": "0.1"}), "is a str, not a number"),
        (lambda r: r["qpos"].update({"robot0:FFJ0": np.zeros(3)}), "not a number"),
        (lambda r: r.update(qpos=[0.0] * 28), "'qpos' is a list"),
        (lambda r: r.update(scale=12.5), "inverse scales"),
    ],
)
def test_bad_records_are_named(rng, change, message):
    good, bad = record(rng), record(rng)
    bad = copy.deepcopy(bad)
    change(bad)
    with pytest.raises(DatasetError, match=message):
        dexgraspnet.parse([good, bad], "file")
    with pytest.raises(DatasetError, match="no grasps"):
        dexgraspnet.parse([], "file")


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("o a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "encloses no volume"),
        ("v 0 0 nan\nf 1 1 1\n", "not finite"),
        ("v 0 zero 0\n", "line 1: cannot read"),
        ("v 0 0 0\nf 1 2 3\n", "refers to vertex 3, there are 1"),
        ("", "no pieces"),
    ],
)
def test_bad_meshes_are_named(tmp_path, rng, mesh, message):
    code = write(tmp_path, [record(rng)], mesh)
    with pytest.raises(MeshError, match=message):
        dexgraspnet.read(tmp_path, code)


def test_missing_files_are_named(tmp_path, rng):
    with pytest.raises(DatasetError, match="no dataset"):
        dexgraspnet.codes(tmp_path)
    code = write(tmp_path, [record(rng)])
    assert dexgraspnet.codes(tmp_path) == (code,)
    with pytest.raises(DatasetError, match=code):
        dexgraspnet.read(tmp_path, "sem-other-2")
    (tmp_path / "meshdata" / code / "coacd" / "decomposed.obj").unlink()
    with pytest.raises(MeshError, match="no such mesh"):
        dexgraspnet.read(tmp_path, code)


def test_real_sample(shared):
    root = shared / "data" / "dexgraspnet"
    if not root.is_dir():
        pytest.skip("no DexGraspNet sample at ../shared/data/dexgraspnet")
    codes = dexgraspnet.codes(root)
    assert len(codes) == 3
    counts = []
    for code in codes:
        sizes = dexgraspnet.read(root, code)
        assert [s.scale for s in sizes] == [0.06, 0.08, 0.1, 0.12, 0.15]
        assert all(s.shape.mesh.is_watertight for s in sizes)
        assert all(np.isfinite(s.grasps.phi).all() for s in sizes)
        counts.append(sum(len(s.grasps) for s in sizes))
    assert counts == [246, 248, 206]
