"""Chooses, of a hundred grasps of each object, the ten that a person would most likely make.

    python -m experiments.select                            # the six test objects, no key needed
    python -m experiments.select --object mug               # one of our parametric objects
    python -m experiments.select --objects FOLDER_OR_FILE   # your meshes
    python -m experiments.select --scorer gemini --model-name MODEL --input-price PRICE
        --output-price PRICE --cap 0.50 --requirement "hand it over"
    python -m experiments.select --replay runs/select --model-name MODEL --out runs/again
        --requirement "hand it over"

Grasps are generated, refined and tested in physics; those that hold are scored from 0 to 5 and
explained. `--scorer local` measures them (see docs/selection.md); `--scorer gemini` sends their
pictures to Google, costs money, and needs GEMINI_API_KEY and `pip install 'realdex_jax[gemini]'`;
what it does not answer, the local scorer does, and those come after Gemini's. Every answer is kept
in `out/transcript.jsonl`, so an interrupted run pays for nothing twice; with the grasps in
`out/pools` and their pictures in `out/pictures`, `--replay` repeats a run anywhere, without key or
network.

Writes `out/<object>.npz` (the chosen grasps, best first), `out/selection.json` (every score with
its explanation), `out/sheets/<object>.jpg` (all pictures, best first, the chosen framed) and
`out/report.html`.
Takes 4 minutes on 2 cores.
"""

if __name__ == "select":  # found in place of the standard library's module of that name
    raise ImportError("run scripts as modules, from the folder above: python -m experiments.NAME")

import collections
import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import asking, chain, commands, protocol, selection
from experiments.protocol import Entry, Measured, Taken
from experiments.selection import Chosen, Pool
from realdex_jax.data import object_files, schema
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.evaluation import report, results, tables
from realdex_jax.evaluation.report import Picture
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import generator as generators
from realdex_jax.models import grasp_model
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.select import features
from realdex_jax.select.budget import Budget, Prices
from realdex_jax.select.gemini import GeminiConfig, GeminiScorer
from realdex_jax.select.local import LocalScorer
from realdex_jax.select.scorer import Scorer, Task
from realdex_jax.select.scorer import best as best_of
from realdex_jax.select.transcript import Replay, Transcript
from realdex_jax.training import loop
from sim import objects, render, robustness
from sim.physics import Physics, StrictPhysics

SEEN = (320, 240)
"""Size of the pictures that are scored and shown, pixels."""
SMALL = (160, 120)
"""Size of the others on a sheet."""
_COLUMNS = 10
_FRAME = np.array([11, 107, 58], np.uint8)
_INK = (20, 20, 20)


@dataclasses.dataclass(frozen=True)
class Select:
    """Command line of this script."""

    data: str = "realdex-sim"
    """Name or folder of a dataset."""
    split: str = "test"
    """Its split."""
    object: str | None = None
    """One parametric object by name, instead of a dataset's split."""
    objects: Path | None = None
    """A folder of meshes, or one mesh (.obj .stl .ply .glb), instead of a dataset."""
    scale: float | None = None
    """Factor to metres for `--objects`; metres if not given."""
    model: str = "realdex-sim-small"
    """Name of a shipped grasp model, or a `.safetensors` file."""
    camera: chain.Camera = "scan"
    """scan: clouds of whole surfaces. kinect: what one virtual depth camera sees."""
    count: int = 100
    """Grasps generated per object."""
    top: int = 10
    """Grasps chosen per object."""
    seed: int = 0
    """Of clouds and grasps."""
    scorer: Literal["local", "gemini"] = "local"
    """Who scores."""
    requirement: str = ""
    """A special wish in your words, such as "hand it over"; only Gemini understands it."""
    model_name: str | None = None
    """Gemini's model, as Google names it."""
    input_price: float | None = None
    """Its price of a million tokens sent; see Google's price list."""
    output_price: float | None = None
    """Its price of a million tokens received, thoughts included."""
    cap: float = 1.0
    """Most that all runs with this `--out` may cost, in the currency of the prices, by the worst
    case of every request (all of `--max-output-tokens`); what a run really costs is some fifth of
    it."""
    max_output_tokens: int = 8192
    """Longest reply to eight pictures, thoughts included."""
    thinking_budget: int | None = None
    """Tokens that Gemini may think; 0: none, where the model allows that; as it likes if not
    given."""
    deadline: float = 300.0
    """Seconds to wait for Gemini per object; what it has not scored then, the local scorer does."""
    url: str = "https://generativelanguage.googleapis.com"
    """Where Gemini is asked, for a gateway of your own."""
    replay: Path | None = None
    """Folder of an earlier run whose grasps and answers are taken, instead of making and asking."""
    sheet: bool = True
    """Draw all grasps of each object on one sheet."""
    out: Path = Path("runs/select")
    """Folder of everything written."""


@dataclasses.dataclass(frozen=True, eq=False)
class Done:
    """One object's selection."""

    entry: Entry
    pool: Pool
    chosen: Chosen
    values: dict[str, Float[np.ndarray, " b"]]
    """Metrics of the pool by name; the strict physics test, which no scorer saw, among them."""
    pictures: list[Picture]


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Select, __doc__)
    console = Console()
    with commands.ending(console, "stopped; what was scored by Gemini is kept in the transcript"):
        run(config, console)


def run(config: Select, console: Console) -> None:
    """Chooses, prints, writes."""
    if min(config.count, config.top) < 1:
        raise ConfigError(f"--count {config.count}, --top {config.top}; both at least one")
    if config.seed < 0:
        raise ConfigError(f"--seed {config.seed}; a seed is not negative")
    if config.object is not None and config.objects is not None:
        raise ConfigError("--object and --objects: give one of them")
    if config.scale is not None and config.objects is None:
        raise ConfigError("--scale is for meshes of your own; add --objects")
    if config.replay is not None and config.scorer == "local" and config.model_name is None:
        raise ConfigError("--replay needs --model-name: whose answers are wanted")
    if config.requirement and config.scorer == "local" and config.replay is None:
        raise ConfigError(
            f"--requirement {config.requirement!r} is for a scorer that reads; add --scorer gemini"
        )
    commands.make_folder(config.out)
    data, entries, notes = _entries(config)
    hand, model = load(), grasp_model.load_model(config.model)
    seconds: dict[str, float] = collections.defaultdict(float)
    done: list[Done] = []
    with (
        _scorer(config) as scorer,
        commands.progress(console) as bar,
        loop.stop_on_signals(bar.console.print) as stop,
    ):
        task = bar.add_task("", total=len(entries))
        for entry in entries:
            if stop.signal is not None:
                notes.append(f"stopped after {len(done)} of {len(entries)} objects")
                break
            bar.update(task, description=escape(entry.shape.name))
            try:
                one = _select(hand, model, entry, scorer, config, seconds, notes)
            except RealdexError as error:
                notes.append(f"left out: {entry.shape.name}: {type(error).__name__}: {error}")
            else:
                if one is None:
                    notes.append(f"{entry.shape.name}: no grasp held the object; nothing to choose")
                else:
                    done.append(one)
            bar.advance(task)
        if isinstance(scorer, GeminiScorer):
            notes += asking.costs(scorer)
    notes += _stand_ins(scorer.name, done)
    if not done:
        raise ConfigError("; ".join(notes) or "nothing was chosen")
    _publish(config, data, model, done, notes, seconds, console)
    if stop.signal is not None:
        raise KeyboardInterrupt


def _stand_ins(name: str, done: Sequence[Done]) -> list[str]:
    """A note for each object that not all scores of are the asked scorer's."""
    notes = []
    for one in done:
        others = [score for score in one.chosen.scores if score.by != name]
        if others:
            notes.append(
                f"{one.entry.shape.name}: {len(one.chosen.scores) - len(others)} of "
                f"{len(one.chosen.scores)} grasps scored by {name}, the others by {others[0].by}; "
                "those come last"
            )
    return notes


def _entries(config: Select) -> tuple[str, list[Entry], list[str]]:
    if config.object is not None:
        return "parametric", [Entry(objects.make(config.object), None)], []
    if config.objects is not None:
        entries, notes = protocol.entries_of_folder(config.objects, config.scale)
        return config.objects.name, entries, notes
    return protocol.entries_of_data(config.data, config.split)


@contextlib.contextmanager
def _scorer(config: Select) -> Iterator[Scorer]:
    """The scorer asked for.

    Raises:
        ConfigError: Gemini without its model or prices.
    """
    if config.replay is not None and config.model_name is not None:
        answers = Transcript(config.replay / "transcript.jsonl", read_only=True)
        yield Replay(config.model_name, answers)
    elif config.scorer == "local":
        yield LocalScorer()
    else:
        if config.model_name is None or config.input_price is None or config.output_price is None:
            raise ConfigError(
                "--scorer gemini needs --model-name, --input-price and --output-price, as on "
                "Google's price list"
            )
        settings = GeminiConfig(
            config.model_name,
            Prices(config.input_price, config.output_price),
            cap=config.cap,
            deadline=config.deadline,
            max_output_tokens=config.max_output_tokens,
            thinking_budget=config.thinking_budget,
            base_url=config.url,
        )
        answers = Transcript(config.out / "transcript.jsonl")
        money = Budget(config.cap, config.out / "spent.txt")
        with GeminiScorer(settings, LocalScorer(), answers, money) as scorer:
            yield scorer


def _select(
    hand: HandModel,
    model: GraspModel,
    entry: Entry,
    scorer: Scorer,
    config: Select,
    seconds: dict[str, float],
    notes: list[str],
) -> Done | None:
    """Generates, tests, draws and scores; None if no grasp holds the object."""
    clock = [time.perf_counter()]

    def spent(name: str) -> None:
        clock.append(time.perf_counter())
        seconds[name] += clock[-1] - clock[-2]

    shape = entry.shape
    if config.replay is not None:
        pool = selection.load(config.replay / "pools" / f"{shape.name}.npz", shape)
    else:
        cloud = chain.seen(hand, shape, config.camera, config.seed)
        made = chain.generated(hand, model, cloud, config.count, config.seed)
        spent("generate")
        pool = selection.pool(hand, shape, made.refined)
    spent("physics")
    if not len(pool):
        return None
    selection.save(config.out / "pools" / f"{shape.name}.npz", pool)
    looks = not isinstance(scorer, LocalScorer)
    pngs = _pictures(hand, pool, config) if looks else []
    spent("pictures")
    task = Task(shape.name.replace("_", " "), config.requirement)
    if isinstance(scorer, GeminiScorer):
        notes += asking.too_dear(scorer, task, pngs)
    chosen = selection.choose(scorer, task, pool, config.top, pngs)
    spent("score")
    best = list(chosen.best)
    phi = np.asarray(pool.grasps.phi, np.float32)
    if looks:
        images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pngs]
        large = [images[i] for i in best]
    else:
        images = render.render_grasps(hand, shape, phi, SMALL) if config.sheet else []
        large = render.render_grasps(hand, shape, phi[best], SEEN)
    if config.sheet:
        path = config.out / "sheets" / f"{shape.name}.jpg"
        _sheet(path, images, pool, chosen, scorer.name)
    pictures = [
        Picture(shape.name, f"{place}. Grasp {pool.index[i]}: {_line(chosen, i)}", image)
        for place, (i, image) in enumerate(zip(best, large, strict=True), 1)
    ]
    spent("pictures")
    columns = {
        "score": np.array([score.value for score in chosen.scores], np.float32),
    }
    grasps = dataclasses.replace(pool.grasps, columns=columns)
    object_files.save_grasps(config.out / f"{shape.name}.npz", schema.take(grasps, np.array(best)))
    values = {
        "robust_success": robustness.robustness(
            hand, shape, pool.grasps, StrictPhysics()
        ).success.astype(float),
        "human_score": selection.local_scores(pool.features),
    }
    by_part = selection.by_part(pool.features)
    if by_part is not None:
        values["part_held"] = by_part.astype(float)
    spent("measure")
    return Done(entry, pool, chosen, values, pictures)


def _pictures(hand: HandModel, pool: Pool, config: Select) -> list[bytes]:
    """A PNG of each grasp: drawn and kept, or those of an earlier run, to the byte.

    Drawn anew on another processor a pixel may differ, and a transcript knows pictures by their
    bytes.

    Raises:
        ConfigError: A picture of the earlier run is missing.
    """
    name = pool.shape.name
    if config.replay is None:
        phi = np.asarray(pool.grasps.phi, np.float32)
        pngs = [render.png(image) for image in render.render_grasps(hand, pool.shape, phi, SEEN)]
    else:
        try:
            pngs = [
                (config.replay / "pictures" / name / f"{i}.png").read_bytes() for i in pool.index
            ]
        except OSError as error:
            raise ConfigError(f"--replay: {error.filename}: {error.strerror}") from error
    folder = config.out / "pictures" / name
    folder.mkdir(parents=True, exist_ok=True)
    for i, data in zip(pool.index, pngs, strict=True):
        (folder / f"{i}.png").write_bytes(data)
    return pngs


def _line(chosen: Chosen, i: int) -> str:
    score = chosen.scores[i]
    return f"{score.value:.2f} of 5 ({score.by}). {score.explanation}"


def _sheet(
    path: Path, images: Sequence[UInt8[np.ndarray, "h w 3"]], pool: Pool, chosen: Chosen, by: str
) -> None:
    """All pictures, best first as they are chosen, the chosen ones framed.

    Each with number, score and the first letters of the fingers that touch.
    """
    framed, found = [], selection.each(pool.features)
    for i in best_of(chosen.scores, len(chosen.scores), by):
        image = images[i].copy()
        if i in chosen.best:
            edge = max(2, image.shape[0] // 60)
            for side in (image[:edge], image[-edge:], image[:, :edge], image[:, -edge:]):
                side[:] = _FRAME
        labelled = Image.fromarray(image)
        touching = features.touching(found[i])
        letters = "".join(d[0].upper() if touches else "-" for d, touches in touching.items())
        text = f"{pool.index[i]}: {chosen.scores[i].value:.2f} {letters}"
        ImageDraw.Draw(labelled).text((5, 4), text, fill=_INK)
        framed.append(np.asarray(labelled))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render.contact_sheet(framed, _COLUMNS)).save(path, quality=88)


def _publish(
    config: Select,
    data: str,
    model: GraspModel,
    done: Sequence[Done],
    notes: list[str],
    seconds: dict[str, float],
    console: Console,
) -> None:
    """Measures the pools and the choice, prints the table, writes report and scores."""
    method = generators.kind_of(model.config.generator)
    measured = []
    for one in done:
        every = np.arange(len(one.pool))
        for stage, index in (("physics", every), ("selected", np.array(one.chosen.best))):
            grasps = schema.take(one.pool.grasps, index)
            values = {name: values[index] for name, values in one.values.items()}
            measured.append(Measured(Taken(stage, one.entry, config.seed, grasps), values, {}))
    split = config.split if data == config.data else ""
    rows = protocol.rows(measured, data, split, ("physics", "selected"), method)
    found = results.collect(
        commands.line(),
        [config.seed],
        {"still": Physics().describe(), "strict": StrictPhysics().describe()},
        rows,
        [
            *notes,
            "physics: all grasps that hold in the test six ways, so its means are what a random "
            "choice brings",
        ],
        config=config,
    )
    table = Table(title=f"Of all grasps that hold, and of the {config.top} chosen")
    for name in ("object", "hold", "by the part", "chosen", "robust", "chosen", "score", "chosen"):
        table.add_column(name, justify="left" if name == "object" else "right")
    for before, after in zip(measured[::2], measured[1::2], strict=True):
        table.add_row(
            escape(before.taken.entry.shape.name),
            str(len(before.taken.grasps)),
            *(
                f"{np.mean(m.values[name]):.2f}" if name in m.values else "–"
                for name in ("part_held", "robust_success", "human_score")
                for m in (before, after)
            ),
        )
    console.print(table)
    for note in notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    page = report.html_report(
        found,
        title="Grasps a person would make",
        pictures=[picture for one in done for picture in one.pictures],
        seconds=seconds,
    )
    path = report.save_html(page, config.out / "report.html")
    tables.save(found, config.out / "results.json")
    scores = config.out / "selection.json"
    results.write_whole(scores, json.dumps(_scores(config, done), indent=1))
    console.print(f"scores: {scores}\nreport: {path}", highlight=False)


def _scores(config: Select, done: Sequence[Done]) -> dict[str, object]:
    """Everything said of every grasp, as JSON."""
    return {
        "command": commands.line(),
        "requirement": config.requirement,
        "objects": {
            one.entry.shape.name: [
                {
                    "grasp": int(one.pool.index[i]),
                    "place": one.chosen.best.index(i) + 1 if i in one.chosen.best else None,
                    "score": round(score.value, 4),
                    "by": score.by,
                    "explanation": score.explanation,
                    "aspects": {k: round(v, 3) for k, v in score.aspects.items()},
                    "features": {k: round(float(v[i]), 4) for k, v in one.pool.features.items()},
                }
                for i, score in enumerate(one.chosen.scores)
            ]
            for one in done
        },
    }


if __name__ == "__main__":
    main()
