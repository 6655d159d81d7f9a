"""Training batches: object clouds with grasps of the same object, augmented.

Built on grain's random-access datasets: batch `i` is a function of the seed and `i` alone, so
resuming at a step needs no iterator state and is exact; an iterator over it has a state that
resumes as exactly. `Stored` leaves a dataset, of whatever size, on the disk and keeps what was
drawn last.
"""

import collections
import dataclasses
import functools
import logging
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, overload

import grain
import numpy as np
from absl import flags
from jaxtyping import Array, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax import pytree
from realdex_jax.data.store import Dataset
from realdex_jax.errors import DatasetError, RealdexError
from realdex_jax.geometry import view
from realdex_jax.geometry.cloud import MIN_POINTS

_log = logging.getLogger(__name__)

_SHARED_FROM = 2**20
"""Bytes from which an array comes from another process by shared memory; making a block of it costs
more than sending a smaller array through a pipe."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What a batch holds and how it is augmented."""

    objects: int = 8
    """Objects in a batch."""
    grasps: int = 8
    """Grasps of each object in a batch; sharing an object's encoder makes a step cheaper."""
    points: int = 256
    """Cloud points of each object."""
    turn: bool = True
    """Turn each object about the vertical axis by a random angle."""
    tilt: float = 0.2
    """Standard deviation of a further random rotation, radians; `inf` means uniform over all
    rotations."""
    jitter: float = 0.0005
    """Standard deviation of noise on cloud points, metres."""
    partial: float = 0.25
    """Share of the clouds as a depth camera in a random place sees them, with its noise."""


@pytree.dataclass
class Batch:
    """Grasps of `b` objects, `k` of each, in frames whose origin is the cloud's mean."""

    points: Float[Array | np.ndarray, "b n 3"]
    """Cloud points, metres; their mean is zero."""
    phi: Float[Array | np.ndarray, "b k 28"]
    """Poses in the same frame."""
    item: Int[Array | np.ndarray, " b"]
    """Index of each object in the list of training objects; names the culprit when a loss is not
    finite."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One object in memory."""

    name: str
    points: Float[np.ndarray, "p 3"]
    normals: Float[np.ndarray, "p 3"]
    phi: Float[np.ndarray, "g 28"]
    share: Float[np.ndarray, " g"] | None = None
    """How often each grasp is drawn, summing to 1; all alike if None."""

    @functools.cached_property
    def sphere(self) -> tuple[Float[np.ndarray, " 3"], float]:
        """Middle and radius of the points, metres."""
        rows = np.ascontiguousarray(self.points.T)  # sums along an axis of three are slow
        middle = rows.mean(axis=1)
        apart = rows - middle[:, None]
        return middle, float(np.sqrt(np.einsum("in,in->n", apart, apart).max()))

    @functools.cached_property
    def spacing(self) -> float:
        """Of the points, metres."""
        return view.spacing_of(self.points)


class Stored(Sequence[Item]):
    """Objects of one part of a dataset, read when they are drawn.

    An object that cannot be read, or has too few grasps, is replaced by the next one of the list
    that can be used, the same in every run. The first kind is counted and logged.
    """

    def __init__(
        self,
        dataset: Dataset,
        part: str,
        minimum: int = 1,
        *,
        strict: bool = False,
        kept: int = 2048,
    ) -> None:
        """Lists the objects; reads none.

        Args:
            dataset: The dataset.
            part: One of its parts.
            minimum: Fewest grasps of an object that is drawn.
            strict: Raise what is wrong with an object instead of skipping it.
            kept: Objects in memory, 0.1 MB each with 4096 surface points.

        Raises:
            DatasetError: The part is unknown or empty.
        """
        if not dataset.splits.get(part):
            known = ", ".join(dataset.splits)
            raise DatasetError(f"no objects in part {part!r} of {dataset.name}; known: {known}")
        self._dataset, self._names = dataset, tuple(dataset.splits[part])
        self._minimum, self._strict, self._kept = minimum, strict, max(kept, 1)
        self._items: collections.OrderedDict[int, Item | None] = collections.OrderedDict()
        self._skipped: dict[str, str] = {}
        self._told = 0
        self._lock = threading.Lock()

    @property
    def skipped(self) -> Mapping[str, str]:
        """Why objects were skipped so far, by name."""
        return MappingProxyType(self._skipped)

    def news(self) -> tuple[tuple[str, str], ...]:
        """Names and reasons of objects that were skipped since this was asked last."""
        with self._lock:
            found = tuple(self._skipped.items())[self._told :]
            self._told += len(found)
        return found

    def add(self, skipped: Iterable[tuple[str, str]]) -> None:
        """Counts what was skipped elsewhere."""
        with self._lock:
            for name, reason in skipped:
                self._skipped.setdefault(name, reason)

    def __len__(self) -> int:
        """Number of objects, whether they can be used or not."""
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        """An object, or its replacement.

        Raises:
            DatasetError: No object can be used; or, if strict, this one.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        for step in range(len(self)):
            item = self._item((index + step) % len(self))
            if item is not None:
                return item
        first = next(iter(self._skipped.values()), f"none has {self._minimum} grasps")
        raise DatasetError(f"no object of {self._dataset.name} can be used; first: {first}")

    def _item(self, at: int) -> Item | None:
        with self._lock:
            if at in self._items:
                self._items.move_to_end(at)
                return self._items[at]
        item = self._read(self._names[at])
        with self._lock:
            self._items[at] = item
            while len(self._items) > self._kept:
                self._items.popitem(last=False)
        return item

    def _read(self, name: str) -> Item | None:
        try:
            phi = self._dataset.poses(name)
            if len(phi) < self._minimum:
                return None
            surface = self._dataset.surface(name)
        except RealdexError as error:
            if self._strict:
                raise
            if name not in self._skipped:
                self._skipped[name] = str(error)
                _log.warning("skipped %s (%d so far): %s", name, len(self._skipped), error)
            return None
        return Item(name, surface.points, surface.normals, phi)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: no lock, and nothing that it can read itself."""
        return {**vars(self), "_items": collections.OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process."""
        vars(self).update(state)
        self._lock = threading.Lock()


def batches(source: Sequence[Item], sampling: Sampling, seed: int) -> grain.MapDataset:
    """An endless dataset of `Batch`; `dataset[i]` is batch `i`, the same in every run.

    Batches go through the objects in one random order after the other.
    """
    # Not grain's own shuffle: of few objects it tries numbers by the thousand for each.
    made = functools.partial(_batch, source, sampling, seed)
    return grain.MapDataset.range(sys.maxsize).seed(seed).random_map(made)


# A function of the module, not of `batches`: other processes find it by name.
def _batch(
    source: Sequence[Item], sampling: Sampling, seed: int, index: int, rng: np.random.Generator
) -> Batch:
    count, first = len(source), index * sampling.objects
    passed = (divmod(at, count) for at in range(first, first + sampling.objects))
    chosen = [int(_order(count, seed, epoch)[at]) for epoch, at in passed]
    points, phi = draw([source[at] for at in chosen], sampling, rng)
    return Batch(points=points, phi=phi, item=np.array(chosen, np.int32))


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    return np.random.default_rng((seed, epoch)).permutation(count)


def in_processes(
    data: grain.MapDataset, processes: int, stored: Stored | None = None
) -> grain.IterDataset:
    """The same batches in the same order, made by other processes while one trains.

    An iterator over it has `get_state` and `set_state`; with as many processes as before it goes on
    with the very next batch.

    Args:
        data: What `batches` returns.
        processes: How many; 0 makes them in this one.
        stored: The source of `data`: what other processes skip is counted in this one's.
    """
    if stored is not None and processes:
        # One pickle holds both, so that the `stored` of the other process is its source.
        told = data.map(functools.partial(_with_news, stored))
        return in_processes(told, processes).map(functools.partial(_without_news, stored))
    if not processes:
        return data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain asks them in its processes; ours are not absl programs
    alone = data.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    piped = grain.experimental.WithOptionsIterDataset(
        alone, grain.experimental.DatasetOptions(min_shm_size=_SHARED_FROM)
    )
    options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=4)
    return piped.mp_prefetch(options)


def _with_news(stored: Stored, batch: Batch) -> tuple[Batch, tuple[tuple[str, str], ...]]:
    return batch, stored.news()


def _without_news(stored: Stored, told: tuple[Batch, tuple[tuple[str, str], ...]]) -> Batch:
    batch, news = told
    stored.add(news)
    return batch


def draw(
    items: Sequence[Item], sampling: Sampling, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "b n 3"], Float[np.ndarray, "b k 28"]]:
    """An augmented cloud of each object and some of its grasps, in the cloud's centred frame."""
    points = np.stack([_points(item, sampling, rng) for item in items])
    phi = np.stack([_grasps(item, sampling, rng) for item in items])
    R = _rotations(sampling, len(items), rng)
    points = points @ _transposed(R)
    points += np.float32(sampling.jitter) * rng.standard_normal(points.shape, np.float32)
    centre = points.mean(axis=1, keepdims=True)
    phi = transform(phi, R)
    phi[..., 22:25] -= centre
    return points - centre, phi


def transform(phi: Float[np.ndarray, "b k 28"], R: Rotation) -> Float[np.ndarray, "b k 28"]:
    """Poses of each object seen from a frame whose coordinates are its `R` times the old ones."""
    turned = np.array(phi, np.float32)
    turned[..., 22:25] = phi[..., 22:25] @ _transposed(R)
    of_each = Rotation.from_quat(np.repeat(R.as_quat(), phi.shape[1], axis=0))
    orientation = of_each * Rotation.from_rotvec(phi[..., 25:28].reshape(-1, 3))
    turned[..., 25:28] = orientation.as_rotvec().reshape(*phi.shape[:2], 3)
    return turned


def translation_statistics(
    source: Sequence[Item], most: int = 1000
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Mean and spread (m) of palm positions about the clouds' middles, the same along each axis.

    Turning the clouds makes the distribution nearly round, so one spread serves all axes.

    Args:
        source: The objects.
        most: So many of them are looked at, evenly over the list.
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, min(len(source), most)).round().astype(int))
    some = (source[i] for i in chosen.tolist())
    t = np.concatenate([i.phi[:, 22:25] - i.points.mean(axis=0) for i in some])
    spread = max(float(np.sqrt((t**2).mean())), 1e-3)
    return np.zeros(3, np.float32), np.full(3, spread, np.float32)


def _points(item: Item, sampling: Sampling, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Some of the object's points, in its frame: of all, or of those that a camera sees."""
    points = _measured(item, rng) if rng.uniform() < sampling.partial else item.points
    chosen = rng.choice(len(points), sampling.points, replace=len(points) < sampling.points)
    return points[chosen].astype(np.float32, copy=False)


def _grasps(item: Item, sampling: Sampling, rng: np.random.Generator) -> Float[np.ndarray, "k 28"]:
    few = len(item.phi) < sampling.grasps
    chosen = rng.choice(len(item.phi), sampling.grasps, replace=few, p=item.share)
    return item.phi[chosen]


def _measured(item: Item, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """The object's points as one depth camera measures them from anywhere around, not just above.

    All of them if it sees next to nothing.
    """
    middle, radius = item.sphere
    away = rng.normal(size=3)
    away *= (radius + rng.uniform(*view.DISTANCE)) / np.linalg.norm(away)
    seen = view.seen_from(item.points, item.normals, middle + away, item.spacing)
    points = view.noisy(item.points[seen], item.normals[seen], middle + away, rng)
    return points if len(points) >= MIN_POINTS else item.points


def _rotations(sampling: Sampling, count: int, rng: np.random.Generator) -> Rotation:
    if np.isinf(sampling.tilt):
        return Rotation.random(count, rng=rng)
    turn = np.zeros((count, 3))
    if sampling.turn:
        turn[:, 2] = rng.uniform(-np.pi, np.pi, count)
    axis = rng.normal(size=(count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    tilt = axis * rng.normal(0, sampling.tilt, (count, 1))
    return Rotation.from_rotvec(tilt) * Rotation.from_rotvec(turn)


def _transposed(R: Rotation) -> Float[np.ndarray, "b 3 3"]:
    """Matrices that rows of coordinates are multiplied by."""
    return R.as_matrix().astype(np.float32).transpose(0, 2, 1)
