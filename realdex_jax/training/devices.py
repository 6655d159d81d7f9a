"""Data-parallel training: a batch's rows spread over devices and processes that share one state.

Random numbers are drawn for the whole batch, whatever it is spread over, so the same seed gives the
same losses on one device and on many, up to the order of sums.
"""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from realdex_jax.errors import TrainingError

_Tree = TypeVar("_Tree")
_AXIS = "batch"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Processes that train together, on one host or many that share a file system."""

    coordinator: str | None = None
    """Address of process 0, host:port; "auto" asks the cluster manager (Slurm, Open MPI, TPU).
    None trains in this process alone."""
    processes: int | None = None
    """Number of processes."""
    process: int | None = None
    """Which of them this one is, from 0."""


def join(cluster: Cluster) -> None:
    """Joins the other processes; to be called before anything else uses a device.

    Raises:
        TrainingError: Settings that do not fit together, or the others do not answer.
    """
    given = (cluster.processes, cluster.process)
    if cluster.coordinator is None:
        if given != (None, None):
            raise TrainingError("--processes and --process go with --coordinator host:port")
        return
    if cluster.coordinator == "auto":
        coordinator = None
    else:
        coordinator = cluster.coordinator
        if cluster.processes is None or cluster.process is None:
            raise TrainingError(
                f"--coordinator {coordinator} needs --processes and --process; "
                "--coordinator auto asks the cluster manager"
            )
        if not 0 <= cluster.process < cluster.processes:
            raise TrainingError(
                f"--process {cluster.process} of {cluster.processes}; "
                f"0 to {cluster.processes - 1} are"
            )
    try:
        jax.distributed.initialize(coordinator, cluster.processes, cluster.process)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"cannot join the other processes: {error}") from error


def is_first() -> bool:
    """Whether this process is the one that writes logs and descriptions."""
    return jax.process_index() == 0


def any_process(mine: bool) -> bool:
    """Whether it holds in any process; all of them must ask."""
    if jax.process_count() == 1:
        return mine
    return bool(np.any(multihost_utils.process_allgather(np.asarray(mine))))


def wait_for_all(what: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


@dataclasses.dataclass(frozen=True)
class Spread:
    """A batch's rows over devices."""

    mesh: Mesh
    """All devices of all processes, process by process."""
    rows: int
    """Rows of the whole batch."""

    @property
    def share(self) -> int:
        """Rows that this process feeds."""
        return self.rows // jax.process_count()

    def mine(self, batch: _Tree) -> _Tree:
        """This process's rows of a whole batch, arrays (b ...)."""
        first = self.share * jax.process_index()
        return jax.tree.map(lambda x: x[first : first + self.share], batch)

    def batch(self, mine: _Tree) -> _Tree:
        """A batch (b ...) on the devices, from the rows that this process feeds."""
        over = NamedSharding(self.mesh, PartitionSpec(_AXIS))
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(
                over, np.asarray(x), (self.rows, *np.shape(x)[1:])
            ),
            mine,
        )

    def whole(self, tree: _Tree) -> _Tree:
        """A tree of arrays, alike in every process, as a copy on every device."""
        everywhere = NamedSharding(self.mesh, PartitionSpec())

        def copied(x: Any) -> jax.Array:
            if jax.process_count() == 1:
                return jax.device_put(x, everywhere)
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                data = copied(jax.random.key_data(x))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
            return jax.make_array_from_process_local_data(everywhere, np.asarray(x), x.shape)

        return jax.tree.map(copied, tree)


def spread(rows: int, devices: int | None = None) -> Spread:
    """Spreads batches over devices.

    Args:
        rows: Rows of a batch that are worked on apart: objects, windows or motions.
        devices: How many of each process's devices; all by default.

    Raises:
        TrainingError: There are not so many, or the rows do not divide by them.
    """
    local, processes = jax.local_devices(), jax.process_count()
    if devices is not None and not 1 <= devices <= len(local):
        raise TrainingError(f"--devices {devices}; this process has 1 to {len(local)}")
    each = len(local) if devices is None else devices
    if rows % (each * processes):
        valid = [n for n in range(1, len(local) + 1) if rows % (n * processes) == 0]
        choices = ", ".join(map(str, valid)) or "none, with so many processes"
        raise TrainingError(
            f"a batch of {rows} does not divide by {each} devices of {processes} process(es); "
            f"--devices that do: {choices}"
        )
    everywhere = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    chosen: list[Any] = []
    for process in range(processes):
        chosen += [d for d in everywhere if d.process_index == process][:each]
    return Spread(Mesh(np.array(chosen), (_AXIS,), axis_types=(AxisType.Auto,)), rows)


def told(spread: Spread) -> str:
    """The devices in a few words."""
    each, count = spread.mesh.devices.flat, spread.mesh.devices.size
    return str(each[0]) if count == 1 else f"{count} devices, {each[0]} to {each[-1]}"
