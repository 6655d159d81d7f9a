"""Pictures of grasps without OpenGL: rays cast by MuJoCo, lights and smooth edges in numpy.

Object pixels near the hand's surface are tinted, so a picture shows where the hand touches.
"""

import concurrent.futures
import dataclasses
import io
import queue
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from realdex_jax.errors import RealdexError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from sim.stage import FINGER, TOUCH, Hits, Stage, load_stage

FIELD_OF_VIEW = np.deg2rad(32.0)
"""Vertical opening of the camera, radians."""
_TOUCHED = np.array([0.85, 0.10, 0.12])
_SKY = np.array([[1.0, 1.0, 1.0], [0.86, 0.89, 0.93]])
_AMBIENT, _KEY, _FILL = 0.34, 0.62, 0.22
_EDGE_SAMPLES = np.array([[-0.3, -0.2], [0.3, 0.2]])
"""Where in a pixel edges are looked at beside the middle; two do what four did."""
_SHADOW_GAP = 0.006
_ALIKE, _STEP = 0.97, 0.004
"""Between pixels whose normals' mean is this long, and whose distances differ by less (m), nothing
new is expected."""
_LIGHT = np.array([0.45, 0.85, 0.45])
"""Above a table: to the left, up and toward the camera, metres."""
_SHADOW_ON_TABLE = 0.45
"""Share of the light that reaches shadows where there is a table to reflect it."""
_VIEWS = 20
_VIEW_SIZE = (40, 30)
_ENOUGH = 12
"""Pixels of such a view that show a digit."""


class RenderError(RealdexError):
    """A picture that cannot be drawn as asked."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera; x right, y down, z forward. Of a grasp, the world is the object's frame."""

    p_world: Float[np.ndarray, " 3"]
    R_world_cam: Float[np.ndarray, "3 3"]

    def rays(
        self, pixels: Float[np.ndarray, "r 2"], size: tuple[int, int]
    ) -> Float[np.ndarray, "r 3"]:
        """Unit directions in the world through pixel coordinates (column, row)."""
        width, height = size
        scale = 2.0 * np.tan(FIELD_OF_VIEW / 2.0) / height
        flat = (pixels - [width / 2.0, height / 2.0]) * scale
        v_cam = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
        v_cam /= np.linalg.norm(v_cam, axis=1, keepdims=True)
        return v_cam @ self.R_world_cam.T


def render_grasp(
    hand: HandModel,
    shape: ObjectShape,
    phi: Float[np.ndarray, " phi"],
    size: tuple[int, int] = (320, 240),
    camera: Camera | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws one grasp.

    Args:
        hand: The hand; its visual meshes are drawn where they are installed, else its primitives.
        shape: The object.
        phi: Pose of the hand in the object frame.
        size: Width and height, pixels.
        camera: Where to look from; by default the view that shows most contacts.

    Raises:
        RenderError: The pose is not finite or the size not positive.
    """
    _check(phi, size)
    return _draw(load_stage(hand, shape), phi, size, camera)


def render_grasps(
    hand: HandModel,
    shape: ObjectShape,
    phi: Float[np.ndarray, "b phi"],
    size: tuple[int, int] = (320, 240),
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Draws many grasps of one object, each as `render_grasp` does, one on each core at a time.

    Raises:
        RenderError: As `render_grasp`.
    """
    _check(phi, size)
    stages: queue.SimpleQueue[Stage] = queue.SimpleQueue()
    free = load_stage(hand, shape).copies()
    for stage in free:
        stages.put(stage)

    def draw(one: Float[np.ndarray, " phi"]) -> UInt8[np.ndarray, "h w 3"]:
        stage = stages.get()
        try:
            return _draw(stage, one, size, None)
        finally:
            stages.put(stage)

    with concurrent.futures.ThreadPoolExecutor(len(free)) as pool:
        return list(pool.map(draw, phi))


def _check(phi: Float[np.ndarray, "*b phi"], size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise RenderError(f"picture size {size}; width and height must be positive")
    if not np.isfinite(phi).all():
        raise RenderError("pose has NaN or infinite values; nothing to draw")


def _draw(
    stage: Stage, phi: Float[np.ndarray, " phi"], size: tuple[int, int], camera: Camera | None
) -> UInt8[np.ndarray, "h w 3"]:
    stage.place(phi)
    if camera is None:
        camera = best_camera(stage, size[0] / size[1], stage.outline())
    return take(stage, camera, size)


def take(
    stage: Stage,
    camera: Camera,
    size: tuple[int, int],
    smooth: bool = True,
    touched: bool = True,
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a stage as it is placed.

    Args:
        stage: The stage.
        camera: Where to look from.
        size: Width and height, pixels.
        smooth: Sample edges finely, at twice the time.
        touched: Tint the object where the hand touches it.
    """
    width, height = size
    grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    hits = _first_hits(stage, camera, grid, size)
    image = _shade(stage, camera, hits, grid.reshape(-1, 2), size, touched)
    edge = np.flatnonzero(_edges(hits, size)) if smooth else []
    if len(edge):
        fine = (grid.reshape(-1, 2)[edge, None] + _EDGE_SAMPLES).reshape(-1, 2)
        hits = stage.cast(camera.p_world, camera.rays(fine, size))
        shaded = _shade(stage, camera, hits, fine, size, touched)
        finer = shaded.reshape(len(edge), len(_EDGE_SAMPLES), 3)
        image[edge] = (image[edge] + finer.sum(axis=1)) / (1 + len(_EDGE_SAMPLES))
    pixels = 255.0 * np.clip(image, 0.0, 1.0) ** (1 / 1.1)
    return pixels.round().astype(np.uint8).reshape(height, width, 3)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], columns: int, gap: int = 4
) -> UInt8[np.ndarray, "hh ww 3"]:
    """Pastes pictures of one size into rows of `columns`, on white, `gap` pixels apart.

    Raises:
        RenderError: No picture, no column, or pictures of different sizes.
    """
    if not images or columns < 1:
        raise RenderError(f"{len(images)} pictures in {columns} columns; both must be positive")
    if len({image.shape for image in images}) > 1:
        raise RenderError("pictures of different sizes cannot share a sheet")
    height, width, _ = images[0].shape
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def best_camera(
    stage: Stage,
    aspect: float,
    points: Float[np.ndarray, "n 3"],
    heights: tuple[float, float] = (-0.25, 0.8),
    across: Float[np.ndarray, " 3"] | None = None,
) -> Camera:
    """The view, world z up, in which most digits that touch, links and object are seen.

    A contact counts as seen if what is in front of it is less than a finger away: then the picture
    shows the contact or the finger that makes it. Each digit counts by the share of its contacts
    that is seen, or by how much is seen of its links that touch; the thumb as much as all others:
    it is alone on its side, and without it nobody knows how the object is held.

    Args:
        stage: The stage as it is placed.
        aspect: Width of the picture over its height.
        points: What the picture must contain, in the world, metres.
        heights: Sines of the lowest and the highest elevation to look from.
        across: A unit vector in the world better seen from the side than along it.
    """
    contacts, link = stage.contacts()
    digit = _digits(stage.hand)[link]
    touching = np.unique(digit)
    weight = np.where(touching == len(stage.hand.facts.fingers), max(len(touching) - 1, 1), 1)
    columns, rows = np.meshgrid(np.arange(_VIEW_SIZE[0]) + 0.5, np.arange(_VIEW_SIZE[1]) + 0.5)
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    best, best_score = None, -np.inf
    for direction in _directions(*heights):
        camera = fitted(direction, points, aspect)
        hits = stage.cast(camera.p_world, camera.rays(pixels, _VIEW_SIZE), rough=True)
        mine = (hits.geom == stage.object_geom).sum()
        seen_links = stage.link[hits.geom[hits.geom >= 0]]
        hand = (seen_links >= 0).sum()
        links = len(set(seen_links.tolist()) - {-1}) / len(stage.hand.link_names)
        # Both large: neither hides the other.
        shown = 2.0 * min(mine, hand) / max(mine + hand, 1)
        seen = 0.0
        if len(contacts):
            offset = contacts - camera.p_world
            far = np.linalg.norm(offset, axis=1)
            first = stage.cast(camera.p_world, offset / far[:, None], rough=True).distance
            shows = first > far - 2.0 * FINGER
            each = [
                _shown(shows[digit == d], np.isin(seen_links, link[digit == d])) for d in touching
            ]
            seen = float(np.average(each, weights=weight))
        score = 2.0 * seen + links + shown
        if across is not None:
            score += 1.0 - abs(float(direction @ across))
        if score > best_score:
            best, best_score = camera, score
    assert best is not None
    return best


def _shown(contacts: Bool[np.ndarray, " k"], links: Bool[np.ndarray, " h"]) -> float:
    """How well a digit is shown, from 0 to 1."""
    return max(float(contacts.mean()), min(float(links.sum()) / _ENOUGH, 1.0))


def _digits(hand: HandModel) -> Int[np.ndarray, " l"]:
    """Which digit each link is of, in the order of the hand's digits; the palm comes after them."""
    digits = hand.facts.digits
    of = [[name.startswith(digit) for digit in digits] for name in hand.link_names]
    return np.array([mine.index(True) if any(mine) else len(digits) for mine in of])


def fitted(
    direction: Float[np.ndarray, " 3"], points: Float[np.ndarray, "n 3"], aspect: float
) -> Camera:
    """The camera that looks along the unit vector `-direction`; the points (m) fill its picture."""
    camera = look_at(direction, np.zeros(3))
    p = points @ camera.R_world_cam
    p_middle = 0.5 * (p.min(axis=0) + p.max(axis=0))
    slope = 0.94 * np.tan(FIELD_OF_VIEW / 2.0) * np.array([aspect, 1.0])
    away = (np.abs(p - p_middle)[:, :2] / slope).max(axis=1) - (p - p_middle)[:, 2]
    p_middle[2] -= away.max()
    return Camera(camera.R_world_cam @ p_middle, camera.R_world_cam)


def look_at(p_world: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"]) -> Camera:
    """A camera at a point that looks at another, the world's z axis up in the picture."""
    forward = (target - p_world) / np.linalg.norm(target - p_world)
    up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.99 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return Camera(p_world, np.stack([right, np.cross(forward, right), forward], axis=1))


def _directions(low: float, high: float) -> Float[np.ndarray, "views 3"]:
    """Evenly spread view directions between two elevations, given by their sines."""
    index = np.arange(_VIEWS) + 0.5
    z = low + (high - low) * index / _VIEWS
    turn = np.pi * (1.0 + 5.0**0.5) * index
    r = np.sqrt(1.0 - z**2)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)


def _light(stage: Stage, camera: Camera) -> Float[np.ndarray, " 3"]:
    """Where the light is: at the camera's upper left, or above the table."""
    right, down, forward = camera.R_world_cam.T
    if stage.p_world_table is None:
        return camera.p_world + 0.35 * (-right - 1.4 * down) - 0.1 * forward
    toward = np.array([-forward[0], -forward[1], 0.0])
    return stage.p_world_table + _LIGHT @ np.stack([-right, [0.0, 0.0, 1.0], toward])


def _shade(
    stage: Stage,
    camera: Camera,
    hits: Hits,
    pixels: Float[np.ndarray, "r 2"],
    size: tuple[int, int],
    touched: bool,
) -> Float[np.ndarray, "r 3"]:
    """Colour of each ray: sky, or a lit and tinted surface."""
    height = size[1]
    blend = np.clip(pixels[:, 1:] / height, 0.0, 1.0)
    colour = (1.0 - blend) * _SKY[0] + blend * _SKY[1]
    hit = hits.geom >= 0
    if not hit.any():
        return colour
    rays = camera.rays(pixels[hit], size)
    p = camera.p_world + hits.distance[hit, None] * rays
    normal = hits.normal[hit]
    normal = np.where((normal * rays).sum(1, keepdims=True) > 0, -normal, normal)
    base = stage.colour[hits.geom[hit]].copy()
    mine = hits.geom[hit] == stage.object_geom
    if touched and mine.any():
        near = 2.0 - np.abs(stage.hand_distance(p[mine])) / TOUCH
        tint = np.clip(near, 0.0, 1.0)[:, None]
        base[mine] = (1.0 - tint) * base[mine] + tint * _TOUCHED
    light = _light(stage, camera)
    to_light = light - p
    far = np.linalg.norm(to_light, axis=1, keepdims=True)
    to_light /= far
    # Meshes lie within the primitives' thickness: nothing that near throws a shadow.
    blocked = stage.cast(light, -to_light, rough=True)
    lit = ((blocked.geom < 0) | (blocked.distance > far[:, 0] - _SHADOW_GAP))[:, None]
    if stage.p_world_table is not None:
        lit = np.maximum(lit, _SHADOW_ON_TABLE)
    diffuse = np.clip((normal * to_light).sum(1, keepdims=True), 0.0, 1.0)
    facing = np.clip(-(normal * rays).sum(1, keepdims=True), 0.0, 1.0)
    half = to_light - rays
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = 0.18 * lit * np.clip((normal * half).sum(1, keepdims=True), 0.0, 1.0) ** 24
    colour[hit] = base * (_AMBIENT + _KEY * lit * diffuse + _FILL * facing) + shine
    return colour


def _first_hits(
    stage: Stage, camera: Camera, grid: Float[np.ndarray, "h w 2"], size: tuple[int, int]
) -> Hits:
    """What every pixel sees: every second one is looked at, and those between where they differ."""
    width, height = size
    looked = np.zeros((height, width), bool)
    looked[::2, ::2] = True
    geom = np.full((height, width), -1, np.int32)
    distance, normal = np.zeros((height, width)), np.zeros((height, width, 3))

    def look(where: Bool[np.ndarray, "h w"]) -> None:
        hits = stage.cast(camera.p_world, camera.rays(grid[where], size))
        geom[where], distance[where], normal[where] = hits.geom, hits.distance, hits.normal

    look(looked)
    # The four corners of a pixel between: an even neighbour on each side, or itself.
    row, column = np.arange(height)[:, None], np.arange(width)[None]
    corners = [
        (
            np.minimum(row // 2 * 2 + 2 * a * (row % 2), (height - 1) // 2 * 2),
            np.minimum(column // 2 * 2 + 2 * b * (column % 2), (width - 1) // 2 * 2),
        )
        for a in (0, 1)
        for b in (0, 1)
    ]
    around_geom = np.stack([geom[at] for at in corners])
    around_distance = np.stack([distance[at] for at in corners])
    around_normal = np.stack([normal[at] for at in corners])
    mean = around_normal.sum(axis=0)
    length = np.linalg.norm(mean, axis=-1)
    same = (
        (around_geom == around_geom[0]).all(axis=0)
        & ((length > 4 * _ALIKE) | (around_geom[0] < 0))
        & (np.ptp(around_distance, axis=0) < _STEP)
    )
    between = same & ~looked
    geom[between], distance[between] = around_geom[0][between], around_distance.mean(0)[between]
    normal[between] = mean[between] / np.maximum(length[between], 1e-9)[:, None]
    look(~same & ~looked)
    return Hits(geom.ravel(), distance.ravel(), normal.reshape(-1, 3))


def _edges(hits: Hits, size: tuple[int, int]) -> Bool[np.ndarray, " r"]:
    """Pixels whose neighbour shows another geometry, a bend or a step; they are sampled again."""
    width, height = size
    geom = hits.geom.reshape(height, width)
    normal = hits.normal.reshape(height, width, 3)
    distance = np.where(hits.geom >= 0, hits.distance, 0.0).reshape(height, width)
    edge = np.zeros((height, width), bool)
    for axis in (0, 1):
        a, b = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(-1),)
        differs = (
            (geom[a] != geom[b])
            | ((normal[a] * normal[b]).sum(-1) < 0.85)
            | (np.abs(distance[a] - distance[b]) > 0.008)
        ) & ((geom[a] >= 0) | (geom[b] >= 0))
        edge[a] |= differs
        edge[b] |= differs
    return edge.ravel()


def png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture as a PNG file."""
    into = io.BytesIO()
    Image.fromarray(picture).save(into, "PNG")
    return into.getvalue()
