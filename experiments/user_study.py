"""Asks people: methods' pictures or videos side by side, unnamed and in random order.

    python -m experiments.user_study draw --methods cvae=runs/cvae/grasps ours=runs/ours/grasps
    python -m experiments.user_study serve --items FOLDER          # prints the address to open
    python -m experiments.user_study serve --items FOLDER --mode score
    python -m experiments.user_study tally --out runs/user_study   # at any time, also while it runs

FOLDER holds <object>/<method>/<sample>.png (or jpg, webp, mp4, webm); every object needs the same
methods, every method of an object the same samples. A trial shows one sample of one object by every
method. `draw` makes such pictures of the grasps of several evaluations; `serve` writes
`study.sqlite` and goes on with it when it is started again; `tally` writes `votes.csv`, `table.md`,
`table.json`, `results.json` and `report.html`. See docs/user_study.md.
Takes as long as people take.
"""

import dataclasses
import json
import os
import re
import shlex
import tempfile
import time
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from experiments import commands, protocol, study_page
from realdex_jax.data import object_files
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import page, results
from realdex_jax.hand.load import load
from sim import render
from study import ballots, plan, tally
from study.design import QUESTIONS, Design, Mode

WIDTHS = (16, 4096)
"""Least and greatest width of a picture that is drawn, pixels."""


@dataclasses.dataclass(frozen=True)
class Draw:
    """Draws grasps of several methods as items: the same objects, random grasps of each."""

    methods: tuple[str, ...]
    """NAME=FOLDER of each; a folder of <object>.npz, as evaluations and `select` leave."""
    data: str = "realdex-sim"
    """Name or folder of the dataset that the objects are of."""
    split: str = "test"
    """Its split."""
    objects: Path | None = None
    """A folder of meshes, or one mesh, instead of a dataset."""
    scale: float | None = None
    """Factor to metres for `--objects`; metres if not given."""
    samples: int = 3
    """Grasps of each object and method; the paper shows 3."""
    seed: int = 0
    """Of the choice of grasps."""
    width: int = 640
    """Width of a picture, pixels; three quarters of it is the height."""
    items: Path = Path("runs/user_study/items")
    """Folder to draw into; must be new or empty. It appears when all is drawn."""


@dataclasses.dataclass(frozen=True)
class Serve:
    """Shows the items to people and stores their answers, until Ctrl-C."""

    items: Path
    """Folder of <object>/<method>/<sample>.png, jpg, webp, mp4 or webm."""
    out: Path = Path("runs/user_study")
    """Folder of the study's file; a study that is there goes on."""
    mode: Mode = "rank"
    """rank: a place for each, k to 1 points with k methods. score: 0 to 5 for each."""
    samples: int | None = None
    """Only so many random samples of each object, the same for everybody; the paper shows 3."""
    question: str | None = None
    """What people are asked; by default, which grasp looks most like a person's."""
    seed: int = 0
    """Of the orders of trials and methods, and of `--samples`."""
    host: str = "127.0.0.1"
    """Address to listen at; others than this machine's own let others in."""
    port: int = 8765
    """Port; 0 takes a free one."""


@dataclasses.dataclass(frozen=True)
class Count:
    """Counts the answers and writes votes.csv, table.md and table.json."""

    out: Path = Path("runs/user_study")
    """Folder of the study."""
    complete_only: bool = False
    """Leaves out people who did not answer every trial."""
    resamples: int = 10_000
    """Bootstrap samples of the raters."""
    seed: int = 0
    """Of the bootstrap."""


Command = (
    Annotated[Draw, tyro.conf.subcommand("draw")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Count, tyro.conf.subcommand("tally")]
)


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(cast(type[Draw | Serve | Count], Command), __doc__)
    console = Console()
    with commands.ending(console):
        if isinstance(config, Draw):
            draw(config, console)
        elif isinstance(config, Serve):
            serve(config, console)
        else:
            count(config, commands.line(), console)


def draw(config: Draw, console: Console) -> int:
    """Draws the items and says where they are; returns their number.

    Raises:
        ConfigError: Settings that make no sense, a folder in use, or a method without enough
            grasps of any object.
        RealdexError: Data, meshes or grasps that cannot be used.
    """
    folders = _methods(config.methods)
    least, most = WIDTHS
    if config.samples < 1 or config.seed < 0 or not least <= config.width <= most:
        raise ConfigError(
            f"--samples {config.samples}, --width {config.width}, --seed {config.seed}; at least "
            f"1, from {least} to {most}, and at least 0"
        )
    items = config.items.resolve()  # where a link leads, since the folder is renamed at the end
    try:
        if items.exists() and (not items.is_dir() or any(items.iterdir())):
            raise ConfigError(
                f"{config.items} is {'not empty' if items.is_dir() else 'a file'}; name another "
                "folder with --items"
            )
        items.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{items.name}.", dir=items.parent) as made:
            drawn = _draw(config, folders, Path(made) / "items", console)
            (Path(made) / "items").rename(items)
    except OSError as error:
        raise ConfigError(f"cannot draw into {config.items}: {error}") from error
    console.print(
        f"{drawn} pictures; show them: python -m experiments.user_study serve --items "
        f"{shlex.quote(str(config.items))}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return drawn


def _draw(config: Draw, folders: dict[str, Path], items: Path, console: Console) -> int:
    """Draws into a new folder; returns the number of pictures."""
    with console.status("reading objects; a mesh that is new is decomposed, which takes a while"):
        if config.objects is None:
            _, entries, _ = protocol.entries_of_data(config.data, config.split)
        else:
            entries, _ = protocol.entries_of_folder(config.objects, config.scale)
    hand, rng = load(), np.random.default_rng(config.seed)
    size = (config.width, 3 * config.width // 4)
    now = time.time_ns()
    drawn, left_out = 0, []
    for entry in track(entries, description="draw", console=console):
        shape = entry.shape
        paths = {method: folder / f"{shape.name}.npz" for method, folder in folders.items()}
        sets = {m: object_files.load_grasps(path) for m, path in paths.items() if path.is_file()}
        few = [m for m in folders if m not in sets or len(sets[m]) < config.samples]
        if few:
            left_out.append(f"left out: {shape.name}: too few grasps by {', '.join(few)}")
            continue
        for method, grasps in sets.items():
            index = rng.permutation(len(grasps))[: config.samples]
            phi = np.asarray(grasps.phi, np.float32)[index]
            folder = items / shape.name / method
            folder.mkdir(parents=True)
            for sample, image in enumerate(render.render_grasps(hand, shape, phi, size)):
                path = folder / f"{sample}.png"
                Image.fromarray(image).save(path)
                os.utime(path, ns=(now, now))  # methods come one after another
                drawn += 1
    for note in left_out:
        console.print(note, style="yellow", highlight=False, markup=False)
    if not drawn:
        raise ConfigError("no object has enough grasps by every method; nothing was drawn")
    return drawn


def _methods(words: tuple[str, ...]) -> dict[str, Path]:
    """Folders by method, from NAME=FOLDER."""
    folders: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (equals and folder) or not re.fullmatch(r"\w[\w.-]{0,99}", name) or name in folders:
            raise ConfigError(
                f"--methods {word!r}; need NAME=FOLDER, names of at most 100 letters, digits, dots "
                "and dashes that begin with none of these two, each once"
            )
        if not Path(folder).is_dir():
            raise ConfigError(f"--methods {word!r}: no folder {folder}")
        folders[name] = Path(folder)
    if not 2 <= len(folders) <= plan.MAX_METHODS:
        raise ConfigError(
            f"--methods names {len(folders)} methods; people compare at least two, and at most "
            f"{plan.MAX_METHODS}"
        )
    return folders


def serve(config: Serve, console: Console) -> None:
    """Serves until Ctrl-C, and then says how far the study is.

    Raises:
        ConfigError: Settings that make no sense.
        RealdexError: Items or a study's file that cannot be used, or the extra is missing.
    """
    from study import server  # needs the extra; counting does not

    question = QUESTIONS[config.mode] if config.question is None else config.question.strip()
    if not question or len(question) > 300 or not question.isprintable():
        raise ConfigError(f"--question {question[:50]!r}; one line of 1 to 300 letters")
    if config.seed < 0:
        raise ConfigError(f"seed is {config.seed}; seeds are not negative")
    with console.status("reading items; every file is opened once"):
        shown = plan.read(config.items, config.samples, config.seed)
    for note in shown.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    if config.host not in server.LOCAL:
        console.print(
            f"--host {config.host}: other machines can reach this server, and what they send is "
            "not encrypted; whoever has the address can answer",
            style="yellow",
            highlight=False,
            markup=False,
        )
    design = Design(
        mode=config.mode,
        methods=shown.methods,
        trials=tuple((trial.object_name, trial.sample) for trial in shown.trials),
        seed=config.seed,
        question=question,
        digest=shown.digest(),
    )
    opened = ballots.begin(config.out, design)

    def ready(address: str) -> None:
        console.print(
            f"{len(design.trials)} trials of {len(design.methods)} methods at\n{address}\n"
            "Ctrl-C ends; the same command goes on",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    try:
        server.serve(shown, opened, config.host, config.port, ready)
    except KeyboardInterrupt:
        people = opened.everybody()
        answers = sum(len(given) for _, given in people)
        console.print(
            f"stopped; {answers} answers of {len(people)} people are in {opened.path}; count them: "
            f"python -m experiments.user_study tally --out {shlex.quote(str(config.out))}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    finally:
        opened.close()


def count(config: Count, command: str, console: Console) -> tally.Tally:
    """Counts, writes the three files and prints the table.

    Raises:
        RealdexError: No study there, no answers yet, or the files cannot be written.
    """
    opened = ballots.resume(config.out)
    try:
        everybody = opened.everybody()  # once: people may be voting
    finally:
        opened.close()
    found = tally.count(
        opened.design,
        everybody,
        complete_only=config.complete_only,
        resamples=config.resamples,
        seed=config.seed,
    )
    votes = tally.votes_csv(opened.design, everybody)
    described = {
        "command": command,
        "commit": results.commit(),
        "versions": {name: results.versions()[name] for name in ("python", "numpy", "realdex_jax")},
        **tally.described(found),
    }
    files = {
        "votes.csv": votes,
        "table.md": tally.markdown(found, command),
        "table.json": json.dumps(described, indent=2, allow_nan=False) + "\n",
    }
    for name, text in files.items():
        try:
            results.write_whole(config.out / name, text)
        except OSError as error:
            raise ConfigError(f"cannot write {config.out / name}: {error.strerror}") from error
    head, *body = tally.grid(found)
    remarks = list(tally.remarks(found))
    page.leave(
        config.out,
        "User study",
        page.origin(command, config, [config.seed]),
        tally.described(found),
        tables=[page.Table("Methods", head, body)],
        pictures=[study_page.chart(found)],
        notes=remarks,
    )
    table = Table(title="User study")
    for position, text in enumerate(head):
        table.add_column(text, justify="right" if position else "left")
    for line in body:
        table.add_row(*(escape(cell) for cell in line))
    console.print(table)
    for remark in remarks:
        console.print(remark, style="yellow", highlight=False, markup=False)
    console.print(
        f"in {config.out}: {', '.join(files)}, report.html, results.json",
        highlight=False,
        markup=False,
    )
    return found


if __name__ == "__main__":
    main()
