"""Both sides of every comparison in one run on the same cores; prints ratios, writes JSON.

    make bench
    python -m benchmarks.run --only kinematics distances network     # a minute

Takes minutes on 2 cores for each benchmark.
"""

import dataclasses
import html
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    cold_start,
    curves,
    displacement,
    distances,
    floor,
    kinematics,
    memory,
    network,
    physics,
    pictures,
    refinement,
    retarget,
    rollout,
    store,
    throughput,
)
from benchmarks.refinement import Gain
from benchmarks.timing import Timing
from experiments import commands
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import figures, page, results
from sim import objects

Numbers = dict[str, object]


def _kinematics(console: Console, bench: "Bench", cores: int) -> Numbers:
    hands = f"{kinematics.BATCH} hands, {cores} cores"
    forward = kinematics.compare(repeats=bench.repeats)
    found = _compared(console, "kinematics", f"Forward kinematics of {hands}", forward)
    gradient = kinematics.compare_gradients(repeats=bench.repeats)
    title = f"Gradient of forward kinematics of {hands}"
    return found | _compared(console, "kinematics_gradient", title, gradient)


def _distances(console: Console, bench: "Bench", cores: int) -> Numbers:
    size = f"{distances.BATCH} clouds, {cores} cores, with gradient"
    chamfer = distances.chamfer(repeats=bench.repeats)
    found = _compared(console, "chamfer", f"Chamfer distance of {size}", chamfer)
    maps = distances.contact_map(repeats=bench.repeats)
    return found | _compared(console, "contact_map", f"Contact map of {size}", maps)


def _network(console: Console, bench: "Bench", cores: int) -> Numbers:
    grasps = network.OBJECTS * network.GRASPS
    title = f"One training step of the cVAE, {grasps} grasps, {cores} cores"
    return _compared(console, "training_step", title, network.compare(repeats=bench.repeats))


def _physics(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    timings = physics.measure()
    rate, share = _rate(timings), physics.TARGET / 4
    console.print(_table(f"Native physics, {cores} cores", timings))
    console.print(
        f"all objects: {rate:.0f} grasps/s on {cores} cores, {rate / cores:.0f} per core; "
        f"the target of {physics.TARGET:.0f} on 4 cores is {share:.0f} per core "
        f"(ratio {rate / cores / share:.2f})"
    )
    return {
        "physics": _plain(timings),
        "physics_grasps_per_second": rate,
        "physics_ratio_to_target_per_core": rate / cores / share,
    }


def _displacement(console: Console, bench: "Bench", cores: int) -> Numbers:
    count = displacement.GRASPS * len(objects.SPLITS["test"])
    title = f"Displacement after 0.146 s of {count} grasps, {cores} cores"
    found = _compared(
        console,
        "displacement",
        title,
        displacement.compare(repeats=min(bench.repeats, displacement.REPEATS)),
    )
    console.print(f"the target is {displacement.TARGET:.0f} times as fast as the loop")
    return found


def _retarget(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    timings, misses = retarget.measure()
    console.print(_table(f"{retarget.POSES} human hands retargeted, {cores} cores", timings))
    for miss in misses:
        console.print(
            f"{miss.name}: fingertips {miss.median_mm:.3f} mm off in the median, 99 % within "
            f"{miss.worst_mm:.2f} mm"
        )
    console.print(
        f"the targets are {retarget.TARGET:.0f} poses/s on 4 cores and a median of "
        f"{retarget.TARGET_MM:.0f} mm"
    )
    plain = [dataclasses.asdict(miss) for miss in misses]
    return {"retarget": _plain(timings), "retarget_misses": plain}


def _rollout(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    timings = rollout.compare()
    title = f"{rollout.MOTIONS} motions of {rollout.FRAMES} frames, {cores} cores"
    console.print(_table(title, timings, compared=True))
    ours = ", ".join(f"{t.name} {t.median_s:.2f} s" for t in timings[:2])
    console.print(f"{ours}; the target is {rollout.TARGET:.0f} s on 4 cores")
    return {"rollout": _plain(timings)}


def _pictures(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    timings = pictures.measure()
    width, height = pictures.SIZE
    console.print(_table(f"Pictures of grasps, {width} x {height}, {cores} cores", timings))
    console.print(
        f"all objects: {_rate(timings):.1f} pictures/s on {cores} cores; the target is "
        f"{pictures.TARGET:.0f} on 4 cores"
    )
    return {"pictures": _plain(timings), "pictures_per_second": _rate(timings)}


def _store(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    loaded = store.measure()
    console.print(
        f"{loaded.grasps:,} grasps of {loaded.units:,} objects, {cores} cores: converted in "
        f"{loaded.convert_s:.0f} s with {loaded.convert_peak_bytes / 2**30:.2f} GiB (at most "
        f"{store.TARGET_BYTES / 2**30:.0f}), {loaded.dataset_bytes / 2**30:.2f} GiB on disk; "
        f"{loaded.cold_per_second:,.0f} samples/s from the disk, {loaded.per_second:,.0f} "
        f"after; the target is {store.TARGET:,.0f} on 4 cores"
    )
    return {"store": dataclasses.asdict(loaded)}


def _refinement(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    whole = refinement.whole()
    console.print(_table(f"{refinement.WHOLE} grasps of a new object, {cores} cores", whole))
    console.print(f"the target for all is {refinement.TARGET:.0f} s on 4 cores")
    gains = refinement.compare()
    console.print(_gains(gains))
    plain = [dataclasses.asdict(gain) for gain in gains]
    return {"whole": _plain(whole), "refinement": plain}


def _throughput(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    sizes, targets = throughput.sizes(), throughput.TARGETS
    where = f"{throughput.device()}, {cores} cores beside it"
    drops = throughput.drops(sizes.dropped)
    console.print(_table(f"One simulated second of each grasp, {where}", drops))
    generation = throughput.generation(sizes.generated)
    console.print(_table(f"Grasps of one object, {where}", generation))
    validated = throughput.validated(sizes.validated)
    for v in validated:
        console.print(
            f"{v.held:,} of {v.made:,} grasps hold ({v.backend}): {v.generation_s:.1f} s to make, "
            f"{v.physics_s:.1f} s to drop, {v.per_second:,.0f} validated grasps/s"
        )
    training = throughput.training(sizes.steps)
    console.print(_table(f"Training steps, {where}", training))
    console.print(
        f"the targets, of one accelerator: {targets['raw']:,.0f} raw and "
        f"{targets['validated']:,.0f} validated grasps/s, 64 refined in "
        f"{1e3 * targets['refined_s']:.0f} ms, the paper's preset in "
        f"{targets['paper_hours']:.0f} h"
    )
    plain = [{**dataclasses.asdict(v), "per_second": v.per_second} for v in validated]
    return {
        "device": throughput.device(),
        "drops": _plain(drops),
        "generation": _plain(generation),
        "validated": plain,
        "training": _plain(training),
    }


def _memory(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    peaks = memory.measure()
    for peak in peaks:
        console.print(
            f"{peak.name} of {peak.grasps:,} grasps of one object, {cores} cores: "
            f"{peak.peak_bytes / 2**30:.2f} GiB (at most {memory.TARGET_BYTES / 2**30:.0f}), "
            f"{peak.seconds:.0f} s"
        )
    return {"memory": [dataclasses.asdict(peak) for peak in peaks]}


def _floor(console: Console, bench: "Bench", cores: int) -> Numbers:
    rates, floors = floor.measure(bench.repeats)
    title = (
        f"What {cores} cores could do at best: {rates.flops / 1e9:.0f} GFLOP/s, "
        f"{rates.bytes_per_s / 1e9:.1f} GB/s"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("what", "median ms", "floor ms", "bound by", "times the floor"):
        table.add_column(heading, justify="left" if heading in ("what", "bound by") else "right")
    for f in floors:
        times = f"{1e3 * f.median_s:.2f}", f"{1e3 * f.floor_s:.3f}"
        table.add_row(f.name, *times, f.bound, f"{f.gap:.0f}")
    console.print(table)
    plain = [{**dataclasses.asdict(f), "gap": f.gap} for f in floors]
    return {"machine": dataclasses.asdict(rates), "floors": plain}


def _curves(console: Console, bench: "Bench", cores: int) -> Numbers:
    found = curves.measure()
    table = Table(title=f"Milliseconds by size, {cores} cores", title_justify="left")
    for heading in ("what", "sizes", "ms", "grows with the power"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for curve in found:
        sizes = f"{', '.join(map(str, curve.sizes))} {curve.axis}"
        times = ", ".join(f"{1e3 * s:.2f}" for s in curve.seconds)
        table.add_row(curve.name, sizes, times, f"{curve.exponent:.2f}")
    console.print(table)
    path = bench.json.with_name("curves.svg")
    results.write_whole(path, figures.as_svg(curves.plot(found)))
    console.print(f"plotted in {path}")
    return {"curves": [dataclasses.asdict(curve) for curve in found]}


def _cold_start(console: Console, bench: "Bench", cores: int) -> Numbers:
    del bench
    found = cold_start.measure()
    console.print(
        f"import realdex_jax {found.import_s:.2f} s (at most {cold_start.TARGET_S:.0f}), of "
        f"extras it imports {', '.join(found.optional) or 'nothing'}; {cores} cores: to a loaded "
        f"model {found.loaded_s:.1f} s, from there to ten grasps {found.first_s:.1f} s, in the "
        f"next process {found.again_s:.1f} s; installed {found.installed_bytes / 2**20:.0f} MiB"
    )
    return {"cold_start": dataclasses.asdict(found)}


BENCHMARKS: Mapping[str, Callable[[Console, "Bench", int], Numbers]] = {
    "kinematics": _kinematics,
    "distances": _distances,
    "network": _network,
    "physics": _physics,
    "displacement": _displacement,
    "retarget": _retarget,
    "rollout": _rollout,
    "pictures": _pictures,
    "store": _store,
    "refinement": _refinement,
    "throughput": _throughput,
    "memory": _memory,
    "floor": _floor,
    "curves": _curves,
    "cold_start": _cold_start,
}
"""Each prints what it measures and returns it for the file; in the order in which they run."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What to measure."""

    only: tuple[str, ...] = tuple(BENCHMARKS)
    """Names of benchmarks."""
    json: Path = Path("runs/bench/bench.json")
    """Where the numbers go."""
    repeats: int = 30
    """Timed calls of each side where one is compared with peers."""
    cores: int | None = None
    """Cores to use; all that this process may use if not given."""


def main() -> None:
    """Runs the benchmarks."""
    bench = commands.read(Bench, __doc__, plan=plan)
    console = Console(record=True)
    with commands.ending(console):
        run(bench, console)


def plan(config: Bench) -> Iterator[str]:
    """What a dry run says."""
    _check(config)
    yield f"benchmarks {', '.join(name for name in BENCHMARKS if name in config.only)}"
    yield f"results go to {config.json} and {config.json.with_suffix('.html')}"


def run(bench: Bench, console: Console) -> Numbers:
    """Runs some benchmarks and writes what they measured.

    Raises:
        ConfigError: No benchmark of such a name.
    """
    _check(bench)
    if bench.cores is not None:
        # Set before the first thread pool is made: both sides inherit it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: bench.cores])
    cores = len(os.sched_getaffinity(0))
    about = page.origin(commands.line(), bench)
    found: Numbers = {
        **about,
        "versions": {**about["versions"], **_peers()},
        "cores_used": cores,
    }
    for name, measure in BENCHMARKS.items():
        if name in bench.only:
            found |= measure(console, bench, cores)
            # After each, so that an interrupted run keeps what it has measured.
            results.write_whole(bench.json, json.dumps(found, indent=2) + "\n")
    where = bench.json.with_suffix(".html")
    said = (
        f'<pre class="scroll">{html.escape(console.export_text() if console.record else "")}</pre>'
    )
    results.write_whole(where, page.page("Benchmarks", found, more=said))
    console.print(f"written to {bench.json} and {where}")
    return found


def _check(bench: Bench) -> None:
    unknown = sorted(set(bench.only) - set(BENCHMARKS))
    if unknown or not bench.only:
        raise ConfigError(f"--only {' '.join(unknown)}: known are {', '.join(BENCHMARKS)}")


def _rate(timings: list[Timing]) -> float:
    """Items a second over all."""
    return sum(t.items for t in timings) / sum(t.median_s for t in timings)


def _table(title: str, timings: list[Timing], compared: bool = False) -> Table:
    table = Table(title=title, title_justify="left")
    headings = ("what", "median ms", "10-90 % ms", "per second", "time / ours", "10-90 %")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for t in timings:
        table.add_row(
            t.name,
            f"{1e3 * t.median_s:.2f}",
            f"{1e3 * t.low_s:.2f}-{1e3 * t.high_s:.2f}",
            f"{t.per_second:,.0f}",
            *(_times(t) if compared else ("", "")),
        )
    return table


def _times(timing: Timing) -> tuple[str, str]:
    """How many times as long as ours, turn by turn: median and spread."""
    if timing.ratio is None:
        return "", ""
    low, median, high = timing.ratio
    return f"{median:.2f}", f"{low:.2f}-{high:.2f}"


def _gains(gains: list[Gain]) -> Table:
    table = Table(title="What refinement wins, validation objects", title_justify="left")
    for heading in ("setting", "ms/grasp", "held", "robust", "robust won per ms"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    for g in gains:
        won = "" if g.per_ms is None else f"{g.per_ms:.3f}"
        table.add_row(g.name, f"{g.ms_per_grasp:.1f}", f"{g.held:.3f}", f"{g.robust:.3f}", won)
    return table


def _compared(console: Console, name: str, title: str, timings: list[Timing]) -> Numbers:
    """Prints timings, the first of them ours, and says how many times longer the others take."""
    console.print(_table(title, timings, compared=True))
    ratios = {timing.name: timing.ratio for timing in timings[1:]}
    return {name: _plain(timings), f"{name}_ratio": ratios}


def _plain(timings: list[Timing]) -> list[dict[str, object]]:
    return [{**dataclasses.asdict(t), "per_second": t.per_second} for t in timings]


def _peers() -> dict[str, str]:
    found = {}
    for name in ("torch", "pytorch-kinematics", "pybullet"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
