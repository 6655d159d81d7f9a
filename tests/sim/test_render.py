import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import store
from realdex_jax.hand import joints, load
from sim import objects, render, stage, visuals


@pytest.fixture(scope="module")
def hand() -> load.HandModel:
    return load.load()


@pytest.fixture
def phi() -> np.ndarray:
    """An upright object before the open palm."""
    pose = np.zeros(28)
    pose[:22] = joints.REST
    R_object_hand = Rotation.from_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    pose[22:25] = -R_object_hand.apply([0.0, -0.05, 0.085])
    pose[25:] = R_object_hand.as_rotvec()
    return pose


def test_a_picture_shows_hand_object_and_touch(hand: load.HandModel, phi: np.ndarray) -> None:
    image = render.render_grasp(hand, objects.make("body_lotion"), phi, size=(160, 120))
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8
    r, g, b = image.reshape(-1, 3).astype(int).T
    assert ((r > b + 60) & (g > b + 20)).mean() > 0.03, "object colour"
    assert ((b > r + 4) & (r < 160)).mean() > 0.03, "hand colour"
    assert ((r > 100) & (g < 80) & (b < 80)).sum() > 4, "touched surface"


def test_the_same_grasp_gives_the_same_picture(hand: load.HandModel, phi: np.ndarray) -> None:
    shape = objects.make("body_lotion")
    first, second = (render.render_grasp(hand, shape, phi, size=(64, 48)) for _ in range(2))
    assert (first == second).all()


def test_a_hand_without_visual_meshes_is_drawn_from_primitives(
    hand: load.HandModel, phi: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visuals, "load", lambda hand: ())
    stage.load_stage.cache_clear()
    image = render.render_grasp(hand, objects.make("cosmetics"), phi, size=(64, 48))
    stage.load_stage.cache_clear()
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100


def test_visual_meshes_lie_on_the_primitives(hand: load.HandModel) -> None:
    """Meshes and capsules of the fingers know the same hand: the same place, the same thickness."""
    meshes, geoms = visuals.load(hand), hand.geoms
    assert len(meshes) >= 20
    for finger, tip in enumerate(hand.tip_link):
        g = int(np.flatnonzero(geoms.link == tip)[0])
        mesh = next(mesh for mesh in meshes if mesh.link == tip)
        p_link = mesh.vertices @ mesh.R_link_mesh.T + mesh.p_link_mesh
        p_geom = (p_link - geoms.p_link_geom[g]) @ geoms.R_link_geom[g]
        p_geom[:, 2] -= np.clip(p_geom[:, 2], -geoms.size[g, 1], geoms.size[g, 1])
        gap = np.abs(np.linalg.norm(p_geom, axis=1) - geoms.size[g, 0])
        assert np.median(gap) < 0.002, joints.FINGERS[finger]


def test_rays_hit_a_known_sphere_of_pixels(hand: load.HandModel, phi: np.ndarray) -> None:
    """The silhouette of the object alone has the area that the pinhole model predicts."""
    far = phi.copy()
    far[22:25] += [0.0, 1.5, 0.0]
    shape = objects.make("cracker_box")
    low, high = shape.bounds
    distance = 3.0
    camera = render.look_at(np.array([0.0, -distance, 0.0]), np.zeros(3))
    size = (400, 300)
    image = render.render_grasp(hand, shape, far, size=size, camera=camera).astype(int)
    mine = image[..., 0] > image[..., 2] + 40
    pixel = 2 * np.tan(render.FIELD_OF_VIEW / 2) / size[1] * (distance + low[1])
    expected = (high - low)[[0, 2]] / pixel
    measured = [mine.any(axis=axis).sum() for axis in (0, 1)]
    assert measured == pytest.approx(expected, abs=3)


def test_a_sheet_keeps_pictures_in_reading_order() -> None:
    images = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30)]
    sheet = render.contact_sheet(images, columns=2, gap=1)
    assert sheet.shape == (9, 13, 3)
    assert sheet[0, 0, 0] == 10
    assert sheet[0, 7, 0] == 20
    assert sheet[5, 0, 0] == 30
    assert sheet[5, 7, 0] == 255


def test_mistakes_are_named(hand: load.HandModel, phi: np.ndarray) -> None:
    shape = objects.make("cosmetics")
    with pytest.raises(render.RenderError, match="NaN"):
        render.render_grasp(hand, shape, np.full(28, np.nan))
    with pytest.raises(render.RenderError, match="positive"):
        render.render_grasp(hand, shape, phi, size=(0, 10))
    with pytest.raises(render.RenderError, match="0 pictures"):
        render.contact_sheet([], 3)


def test_many_pictures_are_the_same_as_one_by_one(hand: load.HandModel, phi: np.ndarray) -> None:
    """On several cores at once no picture sees another's hand."""
    shape = objects.make("body_lotion")
    several = np.stack([phi, phi + np.eye(28)[22] * 0.02, phi + np.eye(28)[23] * 0.02])
    together = render.render_grasps(hand, shape, several, size=(64, 48))
    for image, one in zip(together, several, strict=True):
        assert (image == render.render_grasp(hand, shape, one, size=(64, 48))).all()
    assert (together[0] != together[1]).any()
    assert render.render_grasps(hand, shape, several[:0]) == []
    with pytest.raises(render.RenderError, match="NaN"):
        render.render_grasps(hand, shape, several * np.nan)


def test_pixels_left_out_look_as_if_they_were_cast(hand: load.HandModel, phi: np.ndarray) -> None:
    """Every ray against the quarter of them that is cast: shapes agree, depths to a tenth mm."""
    place = stage.load_stage(hand, objects.make("body_lotion"))
    place.place(phi)
    camera = render.best_camera(place, 4 / 3, place.outline())
    size = (97, 70)  # an odd and an even side
    grid = np.stack(np.meshgrid(np.arange(97) + 0.5, np.arange(70) + 0.5), axis=-1)
    some = render._first_hits(place, camera, grid, size)
    every = place.cast(camera.p_world, camera.rays(grid.reshape(-1, 2), size))
    same = some.geom == every.geom
    # Gaps between fingers narrower than two pixels may close.
    assert same.mean() > 0.995
    both = same & (every.geom >= 0)
    assert np.quantile(np.abs(some.distance - every.distance)[both], 0.99) < 1e-3
    assert np.median(np.abs(some.distance - every.distance)[both]) < 1e-4
    cosine = (some.normal * every.normal).sum(axis=-1)[both]
    assert np.quantile(cosine, 0.02) > 0.9


def test_a_person_can_see_which_digits_touch(hand: load.HandModel) -> None:
    """Each link that touches may be hidden, hardly a digit, and the thumb no more than others."""
    size = (160, 120)
    columns, rows = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    large: dict[bool, list[bool]] = {True: [], False: []}
    for name in ("bathroom_cleaner", "body_lotion"):
        place = stage.load_stage(hand, objects.make(name))
        for phi in np.asarray(store.open_dataset("realdex-sim").grasps(name).phi)[:8]:
            place.place(np.asarray(phi, np.float32))
            camera = render.best_camera(place, 4 / 3, place.outline())
            hits = place.cast(camera.p_world, camera.rays(pixels, size))
            seen = place.link[hits.geom[hits.geom >= 0]]
            _, link = place.contacts()
            for digit in {hand.link_names[i][:2] for i in link} - {"pa"}:
                its = [i for i in set(link) if hand.link_names[i].startswith(digit)]
                # A patch of 6 x 6 of these pixels is 12 x 12 of the pictures that people see.
                large[digit == "th"].append(np.isin(seen, its).sum() >= 36)
    assert len(large[True]) >= 12
    assert np.mean(large[True]) >= 0.9
    assert np.mean(large[False]) >= 0.9
