"""The numbers of a study: points by method, their confidence, and how far people agree.

Every answered trial counts, also those of people who left before the end. Intervals are over
people: other people would have been asked, not other objects.
"""

import collections
import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from realdex_jax.errors import RealdexError
from study.ballots import Answer, Participant
from study.design import Design

People = Sequence[tuple[Participant, dict[int, Answer]]]
"""What `Ballots.everybody` gives."""

VOTES = (
    "rater",
    "complete",
    "finished",
    "trial_shown",
    "object",
    "sample",
    "method",
    "place_shown",
    "points",
    "changes",
    "at",
)
"""Columns of the table of votes."""

MAX_RESAMPLES = 1_000_000
"""More take more memory than the last digit is worth."""

_BLANK = "–"


class TallyError(RealdexError):
    """A study that has nothing to count, or settings that make no sense."""


@dataclasses.dataclass(frozen=True)
class Ballot:
    """The answers of one person."""

    rater: int
    answers: tuple[tuple[int, tuple[int, ...]], ...]
    """Trial and points by method."""
    complete: bool
    """Whether all trials are answered."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One method."""

    method: str
    mean: float
    """Points a vote."""
    low: float | None
    """Ends of the 95 % interval of the mean; None with one rater."""
    high: float | None
    raters: int
    votes: int
    given: tuple[int, ...]
    """Of the votes, those that gave it each of `Design.values`."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """What a study found."""

    design: Design
    rows: tuple[Row, ...]
    raters: int
    """People with at least one answer."""
    complete: int
    """Of them, those who answered every trial."""
    only_opened: int
    """People who began and answered nothing; they are in no other number."""
    agreement: float | None
    """rank: Kendall's W, mean over trials. score: Krippendorff's α. None where nothing overlaps."""
    agreement_by_chance: float | None
    """rank: what W would be, were the orders random; trials differ in raters. score: None."""
    agreement_overall: float | None
    """rank: Kendall's W of the raters' orders of methods, by their mean points. score: None."""
    by_place: tuple[float | None, ...]
    """Mean points by place on the page, from left to right; far apart, places mattered."""
    notes: tuple[str, ...]


def count(
    design: Design,
    everybody: People,
    *,
    complete_only: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Tally:
    """Counts a study; it may still be running.

    Args:
        design: The study's.
        everybody: All people and their answers; read once, the same for all tables.
        complete_only: Leaves out people who did not answer every trial.
        resamples: Bootstrap samples of the raters.
        seed: Of the bootstrap.

    Raises:
        TallyError: Nobody has answered anything, or a setting makes no sense.
    """
    if not 100 <= resamples <= MAX_RESAMPLES:
        raise TallyError(f"resamples is {resamples}; it is from 100 to {MAX_RESAMPLES}")
    if seed < 0:
        raise TallyError(f"seed is {seed}; seeds are not negative")
    voted = [(person, answers) for person, answers in everybody if answers]
    kept = [
        (person, answers)
        for person, answers in voted
        if not complete_only or len(answers) == len(design.trials)
    ]
    if not kept:
        what = "nobody has answered every trial yet" if voted else "no answers yet"
        raise TallyError(f"{what}, of {len(everybody)} people who began")
    lists = [_ballot(design, person, answers) for person, answers in kept]
    points = np.array([p for one in lists for _, p in one.answers], np.float64)
    means = points.mean(axis=0)
    low, high = interval(lists, resamples, np.random.default_rng(seed))
    rows = tuple(
        Row(
            method,
            float(means[i]),
            None if low is None else float(low[i]),
            None if high is None else float(high[i]),
            raters=len(lists),
            votes=len(points),
            given=tuple(int((points[:, i] == value).sum()) for value in design.values),
        )
        for i, method in enumerate(design.methods)
    )
    agreement, by_chance, overall = _agreement(design, lists)
    complete = sum(one.complete for one in lists)
    notes = [_how(design, resamples, seed, len(lists))]
    if len(lists) > complete:
        left = len(lists) - complete
        notes.append(f"{left} of {len(lists)} raters have not answered every trial (yet)")
    if len(voted) > len(kept):
        left = len(voted) - len(kept)
        notes.append(f"{left} raters have not answered every trial (yet) and are not counted")
    return Tally(
        design=design,
        rows=rows,
        raters=len(lists),
        complete=complete,
        only_opened=len(everybody) - len(voted),
        agreement=agreement,
        agreement_by_chance=by_chance,
        agreement_overall=overall,
        by_place=_by_place(design, kept),
        notes=tuple(notes),
    )


def interval(
    ballots: Sequence[Ballot], resamples: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, " k"] | None, Float[np.ndarray, " k"] | None]:
    """Bootstrap 95 % interval of every method's mean; raters are drawn with replacement.

    A rater is drawn with all their answers, since those of one person hang together.
    """
    if len(ballots) < 2:
        return None, None
    sums = np.array([np.sum([p for _, p in one.answers], axis=0) for one in ballots], np.float64)
    counts = np.array([len(one.answers) for one in ballots], np.float64)
    drawn = rng.multinomial(len(ballots), np.full(len(ballots), 1 / len(ballots)), resamples)
    means = drawn @ sums / (drawn @ counts)[:, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def kendall_w(values: Float[np.ndarray, "m n"] | Int[np.ndarray, "m n"]) -> float | None:
    """Kendall's coefficient of concordance of m raters on n things, corrected for ties.

    1 if all give the same order, about 1 / m if they order at random. None if it is not defined:
    one rater, one thing, or nobody prefers anything. Kendall and Babington Smith (1939), The
    problem of m rankings; ties as in Siegel and Castellan (1988), section 9.6.
    """
    m, n = values.shape
    if m < 2 or n < 2:
        return None
    ranks = stats.rankdata(values, axis=1)
    totals = ranks.sum(axis=0)
    spread = float(((totals - totals.mean()) ** 2).sum())
    groups = [np.unique(row, return_counts=True)[1].astype(np.float64) for row in ranks]
    ties = sum(float((g**3 - g).sum()) for g in groups)
    most = m**2 * (n**3 - n) - m * ties
    return 12 * spread / most if most > 0 else None


def krippendorff_alpha(values: Float[np.ndarray, "m n"]) -> float | None:
    """Krippendorff's alpha of m raters on n things, for intervals; NaN where one gave no value.

    1 if all say the same, 0 if they agree as by chance, below if less. None if it is not defined:
    no thing with two values, or all values the same. Krippendorff (2011), Computing
    Krippendorff's alpha-reliability.
    """
    given = np.isfinite(values)
    paired = given & (given.sum(axis=0) >= 2)
    x = np.where(paired, values, 0.0)
    m = paired.sum(axis=0)
    n = int(m.sum())
    if n == 0:
        return None
    # Σ (x - y)² over ordered pairs is 2 (m Σ x² - (Σ x)²); deviations keep it exact.
    x = np.where(paired, x - x.sum() / n, 0.0)
    used = m > 0
    within = 2 * (m * (x**2).sum(axis=0) - x.sum(axis=0) ** 2)
    observed = float((within[used] / (m[used] - 1)).sum()) / n
    expected = float(2 * (n * (x**2).sum() - x.sum() ** 2)) / (n * (n - 1))
    return 1 - observed / expected if expected > 0 else None


def votes_csv(design: Design, everybody: People) -> str:
    """Every last answer, one line a person, trial and method.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(VOTES)
    for person, answers in everybody:
        complete = int(len(answers) == len(design.trials))
        for shown, (trial, methods) in enumerate(person.shown, 1):
            if trial not in answers:
                continue
            answer = answers[trial]
            names = [plain_cell(text) for text in design.trials[trial]]
            for method, points in enumerate(answer.points):
                about = (person.number, complete, int(person.finished), shown, *names)
                name, place = plain_cell(design.methods[method]), methods.index(method) + 1
                writer.writerow((*about, name, place, points, answer.revision, answer.at))
    return file.getvalue()


def plain_cell(text: str) -> str:
    """Text that no spreadsheet runs."""
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def grid(tally: Tally) -> list[list[str]]:
    """Headings and rows of the table, as text."""
    lines = [["method", "user score", "95 % interval", "raters", "votes"]]
    for row in tally.rows:
        between = _BLANK if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        lines.append([row.method, f"{row.mean:.2f}", between, str(row.raters), str(row.votes)])
    return lines


def remarks(tally: Tally) -> list[str]:
    """What stands below the table."""
    if tally.design.mode == "rank":
        measure, among = "Kendall's W", ""
        if tally.agreement_by_chance is not None:
            among = f", mean over trials (by chance {tally.agreement_by_chance:.2f})"
        whole = f"; of the orders of methods {_number(tally.agreement_overall)}"
    else:
        measure, among, whole = "Krippendorff's α, interval", "", ""
    lines = [
        *tally.notes,
        f"agreement: {measure} {_number(tally.agreement)}{among}{whole}",
        "mean points by place on the page, from the left: "
        + ", ".join(_number(value) for value in tally.by_place),
    ]
    if tally.only_opened:
        lines.append(f"{tally.only_opened} more opened the study and answered nothing")
    return lines


def markdown(tally: Tally, command: str) -> str:
    """The table as Markdown, with what a reader must know; the best mean is bold."""
    head, *body = grid(tally)
    best = max(row.mean for row in tally.rows)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row, (method, mean, *cells) in zip(tally.rows, body, strict=True):
        shown = f"**{mean}**" if row.mean == best else mean
        lines.append("| " + " | ".join([_escape(method), shown, *cells]) + " |")
    lines += ["", *(f"- {remark}" for remark in remarks(tally)), "", f"`{command}`", ""]
    return "\n".join(lines)


def described(tally: Tally) -> dict[str, Any]:
    """The numbers for a JSON file; what could not be computed is None."""
    design = tally.design
    return {
        "mode": design.mode,
        "question": design.question,
        "seed": design.seed,
        "items": design.digest,
        "trials": len(design.trials),
        "rows": [dataclasses.asdict(row) for row in tally.rows],
        "raters": tally.raters,
        "complete": tally.complete,
        "only_opened": tally.only_opened,
        "agreement": {
            "measure": "kendall_w" if design.mode == "rank" else "krippendorff_alpha_interval",
            "trials": tally.agreement,
            "trials_by_chance": tally.agreement_by_chance,
            "methods": tally.agreement_overall,
        },
        "by_place": list(tally.by_place),
        "notes": list(tally.notes),
    }


def _ballot(design: Design, person: Participant, answers: dict[int, Answer]) -> Ballot:
    return Ballot(
        person.number,
        tuple((trial, answer.points) for trial, answer in sorted(answers.items())),
        len(answers) == len(design.trials),
    )


def _agreement(
    design: Design, ballots: Sequence[Ballot]
) -> tuple[float | None, float | None, float | None]:
    """How far raters agree on the trials, what chance would give, and on the methods as a whole."""
    by_trial: dict[int, list[tuple[int, ...]]] = collections.defaultdict(list)
    for one in ballots:
        for trial, points in one.answers:
            by_trial[trial].append(points)
    if design.mode == "rank":
        found = [(kendall_w(np.array(points)), len(points)) for points in by_trial.values()]
        each = [(w, 1 / m) for w, m in found if w is not None]
        among, by_chance = np.mean(each, axis=0).tolist() if each else (None, None)
        orders = np.array([np.mean([p for _, p in one.answers], axis=0) for one in ballots])
        return among, by_chance, kendall_w(np.round(orders, 9))
    table = np.full((len(ballots), len(design.trials), len(design.methods)), np.nan)
    for index, one in enumerate(ballots):
        for trial, points in one.answers:
            table[index, trial] = points
    return krippendorff_alpha(table.reshape(len(ballots), -1)), None, None


def _by_place(design: Design, people: People) -> tuple[float | None, ...]:
    seen: list[list[int]] = [[] for _ in design.methods]
    for person, answers in people:
        for trial, methods in person.shown:
            if trial in answers:
                for place, method in enumerate(methods):
                    seen[place].append(answers[trial].points[method])
    return tuple(float(np.mean(points)) if points else None for points in seen)


def _how(design: Design, resamples: int, seed: int, raters: int) -> str:
    k = len(design.methods)
    points = f"places 1 to {k} give {k} to 1 points" if design.mode == "rank" else "0 to 5 points"
    pictures = f"{len(design.trials)} trials of {len({name for name, _ in design.trials})} objects"
    if raters < 2:
        return f"{points}, {pictures}; no interval with one rater"
    return f"{points}, {pictures}; interval: {resamples} bootstrap samples of raters, seed {seed}"


def _number(value: float | None) -> str:
    return _BLANK if value is None else f"{value:.2f}"


def _escape(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]" else letter for letter in text)
