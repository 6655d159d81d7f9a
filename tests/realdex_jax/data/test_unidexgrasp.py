"""UniDexGrasp's layout: inverse scales, tables, splits, damaged files, and the real sample."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import dexgraspnet, formats, pieces, unidexgrasp
from realdex_jax.data.source import Source
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

KEYS = (*joints.DEXGRASPNET_NAMES, *dexgraspnet.EULER, *dexgraspnet.TRANSLATION)
BOX = "\n".join(
    [
        "o box",
        *(f"v {x} {y} {z}" for x in (-1, 1) for y in (-1, 1) for z in (-0.5, 0.5)),
        *("f 1 2 4 3", "f 5 7 8 6", "f 1 5 6 2", "f 3 4 8 7", "f 1 3 7 5", "f 2 6 8 4"),
    ]
)


def grasp(rng, **changes):
    values = dict(zip(KEYS, rng.uniform(0, 0.2, 28).tolist(), strict=True))
    return {
        "qpos": np.array(values, dtype=object),
        "scale": np.float32(12.5),
        "plane": np.array([0.0, 0.6, 0.8, 0.03], np.float32),
        **changes,
    }


def write(root, rng, code="core-mug-1", category="core", grasps=None, poses="poses"):
    folder = root / poses / category / code
    folder.mkdir(parents=True)
    for i, arrays in enumerate(grasps or [grasp(rng) for _ in range(3)]):
        np.savez(folder / f"{i:05d}.npz", **arrays)
    mesh = root / "meshes" / category / code / "coacd" / "decomposed.obj"
    mesh.parent.mkdir(parents=True)
    mesh.write_text(BOX)
    return folder


@pytest.mark.parametrize("inside", ["", "DFCData", "data/DFCData"])
def test_the_layout_is_found_where_its_scripts_put_it(tmp_path, rng, inside):
    write(tmp_path / inside, rng, poses="poses" if inside else "datasetv4.1")
    assert formats.recognise(tmp_path) == ("unidexgrasp",)
    source = formats.open_source(tmp_path)
    assert isinstance(source, Source)
    assert source.units == tuple(f"core-mug-1@{s:.3f}" for s in (0.06, 0.08, 0.1, 0.12, 0.15))


def test_conventions(tmp_path, rng):
    one = grasp(rng, scale=np.float32(1 / 0.06))
    write(tmp_path, rng, grasps=[grasp(rng), one])
    unit = unidexgrasp.open_source(tmp_path).read("core-mug-1@0.060")
    assert unit.grasps is not None
    assert len(unit.grasps) == 1
    q, phi = one["qpos"].item(), np.asarray(unit.grasps.phi)[0]
    assert phi[joints.NAMES.index("FFJ4")] == pytest.approx(-q["robot0:FFJ3"])
    assert phi[22:25] == pytest.approx([q["WRJTx"], q["WRJTy"], q["WRJTz"]])
    R = Rotation.from_euler("xyz", [q["WRJRx"], q["WRJRy"], q["WRJRz"]])
    assert np.allclose(Rotation.from_rotvec(phi[25:]).as_matrix(), R.as_matrix(), atol=1e-6)
    columns = {k: np.asarray(v)[0] for k, v in unit.grasps.columns.items()}
    assert [columns[f"plane_{x}"] for x in "xyzd"] == pytest.approx([0.0, 0.6, 0.8, 0.03])
    assert columns["source_file"] == 1
    assert unit.mesh is not None
    shape = pieces.for_pictures("x", unit.mesh, None)
    # Half a mesh unit of 1 / 16.67 m: the inverse of what the file says.
    assert shape.bounds[1] == pytest.approx([0.06, 0.06, 0.03])


def test_sizes_without_grasps_are_empty_and_unknown_ones_are_not_lost(tmp_path, rng):
    write(tmp_path, rng)
    source = unidexgrasp.open_source(tmp_path)
    assert source.read("core-mug-1@0.060").grasps is None
    assert source.read("core-mug-1@0.060").mesh is None
    write(tmp_path, rng, "core-mug-2", grasps=[grasp(rng, scale=np.float32(20.0))])
    source = unidexgrasp.open_source(tmp_path)
    with pytest.raises(DatasetError, match=r"grasps at sizes 0\.05; read are .* \(option scales\)"):
        source.read("core-mug-2@0.060")
    unit = unidexgrasp.open_source(tmp_path, scales=[0.05]).read("core-mug-2@0.050")
    assert unit.grasps is not None
    with pytest.raises(DatasetError, match=r"no object 'core-mug-1@0\.070'"):
        source.read("core-mug-1@0.070")


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path, rng):
    bad = {
        "scale": (grasp(rng, scale=np.float32(0.08)), "mesh units per metre"),
        "plane": (grasp(rng, plane=np.array([0, 2, 0, 0], np.float32)), "has length 2"),
        "qpos": (grasp(rng, qpos=np.array({"WRJTx": 1.0}, dtype=object)), "misses robot0"),
        "lacks": ({"scale": np.float32(12.5)}, "lacks plane, qpos"),
        "shape": (grasp(rng, scale=np.ones(2)), "must be a number"),
    }
    folder = write(tmp_path, rng, grasps=[grasp(rng), *(arrays for arrays, _ in bad.values())])
    torn = folder / "00006.npz"
    torn.write_bytes((folder / "00000.npz").read_bytes()[:300])
    with np.load(folder / "00000.npz", allow_pickle=True) as good:
        arrays = dict(good)
    np.savez(folder / "00007.npz", **arrays)
    content = (folder / "00007.npz").read_bytes()
    header = content[content.index(b"\x93NUMPY") :][:128]
    trace = tmp_path / "trace"
    with zipfile.ZipFile(folder / "00007.npz", "w") as archive:
        code = pickle.dumps(Runs(trace))
        archive.writestr("qpos.npy", header + code)
    source = unidexgrasp.open_source(tmp_path)
    good = source.read("core-mug-1@0.080")
    assert good.grasps is not None
    assert good.grasps.columns["source_file"].tolist() == [0]
    unit = source.read("core-mug-1@0.060")
    assert not trace.exists()
    reasons = [*(text for _, text in bad.values()), "not a readable", "asks for"]
    assert len(unit.notes) == len(reasons) + 1  # ... and that there is nothing at this size
    for i, (note, reason) in enumerate(zip(unit.notes[:-1], reasons, strict=True), start=1):
        assert note.startswith(f"left out: {folder / f'{i:05d}.npz'}")
        assert reason in note


class Runs:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place), "w")


def test_an_object_without_one_good_file_is_refused(tmp_path, rng):
    folder = write(tmp_path, rng, grasps=[{"scale": np.float32(12.5)}])
    with pytest.raises(DatasetError, match=rf"{folder}: no file NNNNN\.npz can be used; first: "):
        unidexgrasp.open_source(tmp_path).read("core-mug-1@0.080")


def test_clouds_stand_in_for_meshes(tmp_path, rng):
    write(tmp_path, rng)
    folder = tmp_path / "meshes" / "core" / "core-mug-1"
    (folder / "coacd" / "decomposed.obj").unlink()
    clouds = rng.normal(size=(2, 3500, 3)).astype(np.float32)
    np.save(folder / "pcs_table.npy", clouds)
    unit = unidexgrasp.open_source(tmp_path).read("core-mug-1@0.080")
    assert unit.mesh is None
    np.testing.assert_allclose(unit.points, 0.08 * clouds[0, :3000], rtol=1e-6)
    np.save(folder / "pcs_table.npy", clouds[:, :100])
    with pytest.raises(DatasetError, match=r"pcs_table\.npy has shape \(2, 100, 3\)"):
        unidexgrasp.open_source(tmp_path).read("core-mug-1@0.080")


def test_splits_are_the_datas_own_with_all_sizes_together(tmp_path, rng):
    for code in ("core-mug-1", "core-mug-2", "core-mug-3"):
        write(tmp_path, rng, code)
    source = unidexgrasp.open_source(tmp_path)
    assert {n for names in source.splits(source.units).values() for n in names} == {*source.units}
    (tmp_path / "splits").mkdir()
    file = tmp_path / "splits" / "core.json"
    file.write_text(json.dumps({"train": ["core-mug-2"], "test": ["core-mug-1"]}))
    parts = source.splits(source.units)
    assert parts["train"] == [f"core-mug-2@{s:.3f}" for s in source.scales]
    assert parts["test"] == [f"core-mug-1@{s:.3f}" for s in source.scales]
    assert parts["val"] == []
    file.write_text(json.dumps({"train": ["core-mug-2"], "test": ["core-mug-2"]}))
    with pytest.raises(DatasetError, match=r"core\.json: core-mug-2 is in train and test"):
        source.splits(source.units)


def test_real_sample(shared):
    root = shared / "data" / "unidexgrasp"
    if not root.is_dir():
        pytest.skip("no UniDexGrasp sample at ../shared/data/unidexgrasp")
    assert formats.recognise(root) == ("unidexgrasp",)
    source = unidexgrasp.open_source(root)
    found = [source.read(unit) for unit in source.units]
    assert sum(len(unit.grasps) for unit in found if unit.grasps is not None) == 24
    for unit in found:
        if unit.grasps is None:
            continue
        phi = np.asarray(unit.grasps.phi)
        plane = np.stack([unit.grasps.columns[f"plane_{x}"] for x in "xyzd"], axis=1)
        height = (plane[:, :3] * phi[:, 22:25]).sum(axis=1) + plane[:, 3]
        assert (height > 0.0).all()  # palms are above their tables: offsets are metres
        assert (np.linalg.norm(phi[:, 22:25], axis=1) < 0.3).all()
