"""The frames of a recording in RealDex's layout as the tracker takes them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float

from capture import observation, registration, segmentation
from capture.device import CaptureError
from capture.object_model import Model
from capture.observation import Observation
from capture.tracking import Moment
from realdex_jax.data import realdex_raw, rigid
from realdex_jax.hand.load import HandModel

_ABOUT = 0.35
"""Radius (m) of what is looked through for the object."""
_LOOKED = 8192
"""Points of that look."""
_CANDIDATES = 3
"""Things in which the object is looked for."""
_FOREARM = 0.12
"""Points so near (m) to the line of the forearm are no object."""
_ELBOW = 0.45
"""Length of that line from the palm, metres."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """A recording's frames; pictures are read when asked for."""

    recording: realdex_raw.Recording
    hand: HandModel | None
    """None where the recording has no robot."""
    table_z: float | None = None
    """Height of the table in the world (m); found in the first frame if None."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.recording.time_ns)

    @functools.cached_property
    def places(self) -> dict[int, Float[np.ndarray, " 7"]]:
        """T_world_cam by camera."""
        return {c: self.recording.wxyz_xyz_world_cam(c) for c in self.recording.cameras}

    @functools.cached_property
    def phi(self) -> Float[np.ndarray, "t 28"]:
        """The hand in the world; where it is not known, as it was nearest."""
        if self.hand is None:
            return np.zeros((self.count, 28))
        return self.recording.hand(self.hand).phi

    @functools.cached_property
    def height(self) -> float:
        """Of the table, metres.

        Raises:
            CaptureError: It cannot be found.
        """
        if self.table_z is not None:
            return self.table_z
        return segmentation.table_height(self.cloud(0), segmentation.looked_at(self.places))

    @functools.cached_property
    def _together(self) -> np.ndarray:
        return self.recording.together().index

    def depths(self, frame: int) -> dict[int, Float[np.ndarray, "_ _"]]:
        """Depth pictures (m) of a frame; cameras without one are left out."""
        return {
            c: self.recording.depth(c, int(k))
            for c, k in zip(self.recording.cameras, self._together[frame], strict=True)
            if k >= 0
        }

    def cloud(self, frame: int) -> Float[np.ndarray, "n 3"]:
        """All points of a frame in the world, metres."""
        found = [np.zeros((0, 3))]
        for c, depth in self.depths(frame).items():
            found.append(rigid.apply(self.places[c], self.recording.lens(c).back_project(depth)[0]))
        return np.concatenate(found)

    def __call__(
        self,
        frame: int,
        p_world_middle: Float[np.ndarray, " 3"],
        radius: float,
        count: int = 4096,
    ) -> Moment:
        """What is seen in a ball.

        Args:
            frame: When.
            p_world_middle: Its middle, metres.
            radius: Metres.
            count: So many points.
        """
        lenses = {c: self.recording.lens(c) for c in self.recording.cameras}
        seen = observation.observe(
            self.depths(frame),
            lenses,
            self.places,
            p_world_middle,
            radius,
            table_z=self.height,
            count=count,
            seed=frame,
        )
        return Moment(seen, jnp.asarray(self.phi[frame], jnp.float32))

    def propose(
        self,
        frame: int,
        model: Model,
        p_world_about: Float[np.ndarray, " 3"] | None = None,
    ) -> tuple[Float[np.ndarray, " 7"], float]:
        """Where the object seems to be: the best fit to one of the things on the table.

        Args:
            frame: When.
            model: The object.
            p_world_about: Where to look; about what the cameras look at if None.

        Returns:
            T_world_object, and the share of its points and surface that does not fit.

        Raises:
            CaptureError: Nothing is there.
        """
        if p_world_about is None:
            p_world_about = segmentation.looked_at(self.places)
        moment = self(frame, p_world_about, _ABOUT, _LOOKED)
        seen = moment.seen
        if self.hand is not None:
            seen = _without_arm(observation.without(seen, self.hand, moment.phi), moment.phi)
        p, free = np.asarray(seen.p_world, np.float64), np.asarray(seen.free)
        things = segmentation.things(p[free])[:_CANDIDATES]
        if not things:
            raise CaptureError(f"frame {frame}: nothing stands on the table at {self.height:.3f} m")
        best: tuple[Array, float] | None = None
        for thing in things:
            mine = free.copy()
            mine[free] = thing
            found = registration.register(model, dataclasses.replace(seen, free=jnp.asarray(mine)))
            cost = float(found.cost[0])
            if best is None or cost < best[1]:
                best = found.T_world_object.wxyz_xyz[0], cost
        assert best is not None
        return np.asarray(best[0], np.float64), best[1]


def _without_arm(seen: Observation, phi: Float[Array, " 28"]) -> Observation:
    """The observation without the points about the forearm, which hangs behind the palm."""
    T_world_hand = jaxlie.SE3.from_rotation_and_translation(jaxlie.SO3.exp(phi[25:]), phi[22:25])
    p_hand = jax.vmap(T_world_hand.inverse().apply)(seen.p_world)
    along = jnp.clip(p_hand[:, 2], -_ELBOW, 0.0)
    away = jnp.linalg.norm(p_hand.at[:, 2].add(-along), axis=-1)
    return dataclasses.replace(seen, free=seen.free & ((along >= 0.0) | (away > _FOREARM)))


def hand_of(recording: realdex_raw.Recording, hand: HandModel) -> HandModel | None:
    """The hand, if the recording has its links."""
    palm = recording.path / "TF"
    return hand if any(palm.iterdir()) else None
