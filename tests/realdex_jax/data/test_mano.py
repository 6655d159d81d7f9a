"""MANO's kinematics against its formulas written anew, and model files sound and unsound."""

import io
import os
import pathlib
import pickle

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.transform import Rotation

from realdex_jax.data import mano, unpickle
from realdex_jax.errors import DatasetError, UnsafePickleError
from tests.realdex_jax.data import hand_files


def test_a_flat_hand_is_its_template(tmp_path):
    model = mano.read(hand_files.write_model(tmp_path / "MANO_RIGHT.pkl"))
    joints, tips = hand_files.joints_and_tips()
    shift = np.array([[0.1, 0.2, 0.3]])
    found = mano.keypoints(model, model.template, np.zeros((1, 3)), np.zeros((1, 45)), shift)[0]
    assert np.allclose(found[[4, 8, 12, 16, 20]], tips + shift)
    # Wrist, then root, middle and outer joint of thumb, index, middle, ring, little finger.
    order = [0, 13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9]
    inner = [k for k in range(21) if k == 0 or k % 4]
    assert np.allclose(found[inner], joints[order] + shift)


def test_keypoints_are_those_of_blend_skinning(rng):
    arrays = hand_files.model_arrays()
    model = model_of(arrays)
    template = arrays["v_template"] + 0.001 * rng.normal(size=(778, 3))
    turn, pose = rng.normal(size=(3, 3)), 0.5 * rng.normal(size=(3, 45))
    shift = rng.normal(size=(3, 3))
    found = mano.keypoints(model, template, turn, pose, shift)
    for t in range(3):
        joints, vertices = skinned(arrays, template, np.concatenate([turn[t], pose[t]]), shift[t])
        whole = np.concatenate([joints, vertices[list(mano.TIPS)]])
        assert np.allclose(found[t], whole[list(mano.ORDER)], atol=1e-12)


def model_of(arrays: dict) -> mano.Mano:
    tips = list(mano.TIPS)
    return mano.Mano(
        template=arrays["v_template"],
        regressor=arrays["J_regressor"].toarray(),
        tip_weights=arrays["weights"][tips],
        tip_shapes=arrays["posedirs"][tips],
        components=arrays["hands_components"],
    )


def skinned(arrays: dict, template: np.ndarray, pose: np.ndarray, shift: np.ndarray):
    """All vertices by homogeneous matrices, as the model's paper writes it."""
    R = Rotation.from_rotvec(pose.reshape(16, 3)).as_matrix()
    rest = arrays["J_regressor"].toarray() @ template
    shaped = template + arrays["posedirs"] @ (R[1:] - np.eye(3)).ravel()
    G = []
    for j in range(16):
        local = np.eye(4)
        local[:3, :3] = R[j]
        parent = hand_files.PARENTS[j] if j else None
        local[:3, 3] = rest[j] - (rest[parent] if j else 0.0)
        G.append(local if parent is None else G[parent] @ local)
    back = np.tile(np.eye(4), (16, 1, 1))
    back[:, :3, 3] = -rest
    blended = np.einsum("vj,jab->vab", arrays["weights"], np.stack(G) @ back)
    vertices = np.einsum("vab,vb->va", blended, np.c_[shaped, np.ones(778)])[:, :3] + shift
    return np.stack(G)[:, :3, 3] + shift, vertices


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_old_and_new_pickles_are_read(tmp_path, protocol):
    arrays = hand_files.model_arrays()
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(hand_files.pickle_with_chumpy(arrays, protocol))
    found = mano.read(path)
    assert np.array_equal(found.regressor, arrays["J_regressor"].toarray())
    assert np.array_equal(found.tip_weights, arrays["weights"][list(mano.TIPS)])


def test_a_plain_file_is_read(tmp_path):
    arrays = hand_files.model_arrays()
    dense = {**arrays, "J_regressor": arrays["J_regressor"].toarray()}
    np.savez(tmp_path / "MANO_RIGHT.npz", **dense)
    found = mano.read(mano.locate(tmp_path))
    assert np.array_equal(found.template, arrays["v_template"])


def test_the_place_of_the_model(tmp_path, monkeypatch):
    monkeypatch.delenv(mano.VARIABLE, raising=False)
    with pytest.raises(DatasetError, match=r"MANO website.*MANO_RIGHT\.pkl.*REALDEX_MANO"):
        mano.locate()
    with pytest.raises(DatasetError, match="neither such a file nor a folder"):
        mano.locate(tmp_path)
    (tmp_path / "mano").mkdir()
    path = hand_files.write_model(tmp_path / "mano/MANO_RIGHT.pkl")
    assert mano.locate(tmp_path) == mano.locate(path) == path
    monkeypatch.setenv(mano.VARIABLE, str(tmp_path))
    assert mano.locate() == path


class Runs:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def test_code_in_a_model_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "trace"
    arrays = hand_files.model_arrays()
    for i, call in enumerate((os.mkdir, sparse.csr_matrix)):
        path = tmp_path / f"{i}.pkl"
        path.write_bytes(pickle.dumps({**arrays, "f": Runs(call, str(trace))}, 2))
        with pytest.raises(UnsafePickleError, match=rf"{i}\.pkl: the pickle asks for"):
            mano.read(path)
    assert not trace.exists()


def test_records_are_admitted_by_name_alone():
    matrix = pickle.dumps(sparse.csc_matrix(np.eye(3)))
    names = {("scipy.sparse._csc", "csc_matrix")}
    found = unpickle.load(io.BytesIO(matrix), "matrix", names)
    assert isinstance(found, unpickle.Record)
    assert np.array_equal(found.state["data"], np.ones(3))
    with pytest.raises(UnsafePickleError):
        unpickle.load(io.BytesIO(matrix), "matrix")
    bent = [
        b"c__builtin__\nobject\n(tR.",
        b"ccopy_reg\n_reconstructor\n(I1\nI2\nNtR.",
        b"\x80\x02K\x01)\x81.",
        b"cchumpy.ch\nCh.__class__\n.",
        b"c__builtin__\neval\n(S'1'\ntR.",
    ]
    for body in bent:
        with pytest.raises(UnsafePickleError):
            unpickle.load(io.BytesIO(body), "bent", {("chumpy.ch", "Ch")})


def broken() -> list[tuple[str, dict, str]]:
    arrays = hand_files.model_arrays()
    nan = arrays["weights"].copy()
    nan[5, 5] = np.nan
    short = sparse.csc_matrix(np.zeros((16, 778)))
    short.indices, short.data = np.array([99], np.int32), np.array([1.0])
    short.indptr = np.concatenate([[0], np.ones(778, np.int32)]).astype(np.int32)
    tree = arrays["kintree_table"].copy()
    tree[0, 3] = 0
    return [
        ("weights", {**arrays, "weights": nan}, "weights is not finite"),
        ("shape", {**arrays, "posedirs": np.zeros((778, 3, 9))}, r"must be \(778, 3, 135\)"),
        ("sparse", {**arrays, "J_regressor": short}, "damaged sparse matrix"),
        ("tree", {**arrays, "kintree_table": tree}, "kintree_table has parents"),
        ("text", {**arrays, "v_template": "flat"}, "must be an array of numbers"),
        ("other", {"betas": np.zeros(3)}, "lacks v_template"),
    ]


@pytest.mark.parametrize(("name", "arrays", "message"), broken(), ids=[b[0] for b in broken()])
def test_broken_models_are_refused_by_name(tmp_path: pathlib.Path, name, arrays, message):
    path = hand_files.write_model(tmp_path / f"{name}.pkl", arrays)
    with pytest.raises(DatasetError, match=f"{name}.*{message}"):
        mano.read(path)


def test_a_cut_model_is_refused(tmp_path):
    whole = hand_files.write_model(tmp_path / "whole.pkl").read_bytes()
    for cut in (0, 100, len(whole) - 3):
        path = tmp_path / f"cut{cut}.pkl"
        path.write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=f"cut{cut}"):
            mano.read(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        mano.read(tmp_path / "absent.pkl")
