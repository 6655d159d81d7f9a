"""Meshes that anybody may have made become grasps, or are refused in words."""

import numpy as np
import pytest
import trimesh

from experiments import uploads
from realdex_jax.errors import ConfigError, MeshError, RealdexError
from realdex_jax.hand.load import load
from realdex_jax.models import grasp_model

MODEL = "realdex-sim-small"


def quiet(what: str, share: float) -> None:
    del what, share


def stl(scale: float = 1.0) -> bytes:
    body = trimesh.creation.cylinder(0.03, 0.12, sections=40)
    return trimesh.Trimesh(scale * body.vertices, body.faces).export(file_type="stl")


@pytest.mark.parametrize(
    ("name", "content", "scale", "message"),
    [
        ("a.step", b"", 1.0, "'a.step': known kinds of meshes are .glb"),
        ("a", b"", 1.0, "'a': known kinds"),
        ("a.stl", b"", 1.0, "a: "),
        ("a.stl", b"solid nothing", 1.0, "a: "),
        ("a.ply", b"\x00" * 4000, 1.0, "a: "),
        ("a.glb", b"glTF" + b"\xff" * 100, 1.0, "a: "),
        ("can.stl", stl(1000.0), 1.0, "can: "),  # millimetres
        ("can.stl", stl(), 0.001, "can: "),
    ],
)
def test_what_is_no_thing_for_a_hand_is_refused(
    name: str, content: bytes, scale: float, message: str
) -> None:
    with pytest.raises(RealdexError) as refused:
        uploads.maker(load(), MODEL)(name, content, scale, quiet)
    assert isinstance(refused.value, MeshError | ConfigError)
    assert message in str(refused.value)
    assert "/tmp" not in str(refused.value)  # nobody's path is told
    assert "realdex_view_" not in str(refused.value)


@pytest.mark.slow
def test_a_mesh_becomes_grasps_that_hold_best_first() -> None:
    told: list[tuple[str, float]] = []
    made = uploads.grasps(
        load(),
        lambda: grasp_model.load_model(MODEL),
        "../my <can>.STL",
        stl(1000.0),
        0.001,
        lambda what, share: told.append((what, share)),
        count=32,
        top=4,
    )
    assert made.thing.name == "my__can_"
    np.testing.assert_allclose(np.ptp(made.thing.vertices, axis=0), [0.06, 0.06, 0.12], rtol=0.02)
    assert 1 <= len(made) <= 4
    assert made.grasps is not None
    score = np.asarray(made.grasps.columns["score"])
    assert (np.diff(score) <= 1e-6).all()
    assert made.notes is not None
    assert all("of 32 grasps hold" in note for note in made.notes)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any("60 x 60 x 120 mm" in what for what, _ in told)
