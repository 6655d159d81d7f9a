"""Projection and back-projection: inverse of each other, and a root finder as witness."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.optimize import root

from realdex_jax.geometry import lens as optics
from realdex_jax.geometry.lens import Lens

PLAIN = Lens(64, 48, 60.0, 61.0, 31.0, 24.5)
BENT = dataclasses.replace(
    PLAIN, distortion=(0.75, -2.83, 0.00088, -0.00024, 1.56, 0.63, -2.67, 1.5)
)
EXACT = 1e-5
"""Pixels; the inverse stops at 1e-9 focal lengths, 1e-6 pixels of a Kinect's colour camera."""


def projected(lens: Lens, p: np.ndarray) -> np.ndarray:
    """OpenCV's documented formula, written out for one point."""
    k1, k2, p1, p2, k3, k4, k5, k6 = lens.distortion
    x, y = p[0] / p[2], p[1] / p[2]
    r2 = x**2 + y**2
    scale = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    u = x * scale + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)
    v = y * scale + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y
    return np.array([lens.fx * u + lens.cx, lens.fy * v + lens.cy])


@pytest.mark.parametrize("lens", [PLAIN, BENT])
def test_projecting_what_was_back_projected_gives_the_pixels(lens, rng):
    depth = rng.uniform(0.3, 2.9, (lens.height, lens.width))
    depth[rng.random(depth.shape) < 0.2] = 0.0
    depth[0, 0] = np.nan
    p_cam, seen = lens.back_project(depth)
    np.testing.assert_array_equal(seen, np.nan_to_num(depth) > 0)
    np.testing.assert_array_equal(p_cam[:, 2], depth[seen])
    pixels = optics.grid(lens.width, lens.height)[seen.ravel()]
    np.testing.assert_allclose(lens.project(p_cam), pixels, atol=EXACT)


@pytest.mark.parametrize("lens", [PLAIN, BENT])
def test_projection_is_the_documented_formula_and_a_root_finder_undoes_it(lens, rng):
    for p in rng.uniform([-0.4, -0.3, 0.7], [0.4, 0.3, 1.5], (20, 3)):
        pixel = lens.project(p[None])[0]
        np.testing.assert_allclose(pixel, projected(lens, p), rtol=1e-12)

        def off(flat, pixel=pixel):
            return projected(lens, np.array([*flat, 1.0])) - pixel

        found = root(off, [0.0, 0.0], tol=1e-12).x
        np.testing.assert_allclose(lens.undistort(pixel[None])[0], found, atol=1e-7)
        np.testing.assert_allclose(found, p[:2] / p[2], atol=1e-7)


def test_rays_are_unit_vectors_to_their_pixels():
    pixels = optics.grid(BENT.width, BENT.height)
    rays = BENT.rays(pixels)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1.0)
    np.testing.assert_allclose(BENT.project(1.7 * rays), pixels, atol=EXACT)


def test_pixels_that_no_direction_leads_to_are_not_points():
    # Shows nothing farther out than 2/3 of 1/sqrt(3) focal lengths: x - x^3 turns back there.
    barrel = dataclasses.replace(PLAIN, distortion=(-1.0, 0, 0, 0, 0, 0, 0, 0))
    p_cam, seen = barrel.back_project(np.ones((48, 64)))
    edge = 2 / 3 / 3**0.5
    shown = (optics.grid(64, 48) - [31.0, 24.5]) / [60.0, 61.0]
    radius = np.linalg.norm(shown, axis=1).reshape(48, 64)
    assert seen[radius < 0.99 * edge].all()
    assert not seen[radius > 1.01 * edge].any()
    assert np.linalg.norm(p_cam[:, :2], axis=1).max() <= 3**-0.5
    assert np.isfinite(p_cam).all()


def test_the_released_lenses_see_all_of_their_pictures(shared):
    folder = shared / "data" / "realdex_release" / "calibration_data"
    for camera in range(4):
        info = json.loads((folder / f"cam{camera}_rgb.txt").read_text())
        fx, _, cx, _, fy, cy, *_ = info["K"]
        lens = Lens(info["width"], info["height"], fx, fy, cx, cy, tuple(info["D"]))
        # Every 30th pixel and all four edges.
        pixels = optics.grid(1920, 1080).reshape(1080, 1920, 2)
        parts = [pixels[::30, ::30], pixels[[0, -1]], pixels[:, [0, -1]]]
        pixels = np.concatenate([p.reshape(-1, 2) for p in parts])
        flat = lens.undistort(pixels)
        assert np.isfinite(flat).all()
        back = lens.project(np.concatenate([flat, np.ones((len(flat), 1))], axis=1))
        np.testing.assert_allclose(back, pixels, atol=EXACT)
        # Without distortion the corner would be 4 % farther out: the files' numbers matter.
        pinhole = (pixels - [cx, cy]) / [fx, fy]
        assert np.abs(flat - pinhole).max() > 0.02
