"""The numbers: by hand, from publications, and by SciPy."""

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import pathlib

import numpy as np
import pytest
from scipy import stats

from study import ballots, tally
from study.ballots import Ballots
from study.design import Design
from study.tally import Ballot, TallyError

ATOL = 1e-12
"""Sums of a few dozen numbers of order one, in float64."""

ZAR = np.array(
    [
        [10.4, 10.8, 11.1, 10.2, 10.3, 10.2, 10.7, 10.5, 10.8, 11.2, 10.6, 11.4],
        [7.4, 7.6, 7.9, 7.2, 7.4, 7.1, 7.4, 7.2, 7.8, 7.7, 7.8, 8.3],
        [17.0, 17.0, 20.0, 14.5, 15.5, 13.0, 19.5, 16.0, 21.0, 20.0, 18.0, 22.0],
    ]
)
"""Wing, tail and bill lengths of twelve birds: Zar, Biostatistical Analysis, example 20.5."""

_ = np.nan
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
)
"""Krippendorff (2011), the example of four observers and twelve units."""


def fill(store: Ballots, people: list[dict[int, tuple[int, ...]]]) -> None:
    for index, answers in enumerate(people):
        number = store.start(f"person {index}").number
        for trial, points in answers.items():
            store.vote(number, trial, 0, points)


def test_means_by_hand(opened: Ballots) -> None:
    """Two raters of all four trials, one who leaves after two, one who only looks."""
    fill(
        opened,
        [
            dict.fromkeys(range(4), (3, 2, 1)),
            dict.fromkeys(range(4), (2, 3, 1)),
            dict.fromkeys(range(2), (2, 1, 3)),
            {},
        ],
    )
    found = tally.count(opened.design, opened.everybody(), resamples=1000)
    # alpha (4·3 + 4·2 + 2·2) / 10, beta (4·2 + 4·3 + 2·1) / 10, gamma (4 + 4 + 2·3) / 10
    assert [row.mean for row in found.rows] == [2.4, 2.2, 1.4]
    assert [(row.raters, row.votes) for row in found.rows] == [(3, 10)] * 3
    # Votes that gave 1, 2 and 3 points.
    assert [row.given for row in found.rows] == [(0, 6, 4), (2, 4, 4), (8, 0, 2)]
    assert (found.raters, found.complete, found.only_opened) == (3, 2, 1)
    # Trials 0 and 1: totals 7, 6, 5 of three raters: 12·2 / (9·24) = 1/9.
    # Trials 2 and 3: totals 5, 5, 2 of two raters: 12·6 / (4·24) = 3/4.
    assert found.agreement == pytest.approx((1 / 9 + 3 / 4) / 2, abs=ATOL)
    assert found.agreement_overall == pytest.approx(1 / 9, abs=ATOL)
    # Two trials with three raters, two with two: not one over the three raters.
    assert found.agreement_by_chance == pytest.approx((1 / 3 + 1 / 2) / 2, abs=ATOL)
    assert "(by chance 0.42)" in tally.markdown(found, "x")
    assert tally.described(found)["agreement"]["trials_by_chance"] == found.agreement_by_chance
    assert "1 of 3 raters have not answered every trial (yet)" in found.notes
    whole = tally.count(opened.design, opened.everybody(), complete_only=True, resamples=1000)
    assert [row.mean for row in whole.rows] == [2.5, 2.5, 1.0]
    assert whole.agreement == pytest.approx(3 / 4, abs=ATOL)
    assert whole.agreement_by_chance == 1 / 2
    assert "1 raters have not answered every trial (yet) and are not counted" in whole.notes


def test_only_the_last_answer_counts(opened: Ballots) -> None:
    number = opened.start("x").number
    opened.vote(number, 0, 0, (3, 2, 1))
    opened.vote(number, 0, 1, (1, 2, 3))
    found = tally.count(opened.design, opened.everybody())
    assert [row.mean for row in found.rows] == [1.0, 2.0, 3.0]
    assert found.rows[0].low is None
    assert found.agreement is None
    assert "no interval with one rater" in found.notes[0]
    assert found.agreement_by_chance is None
    assert "chance" not in tally.markdown(found, "x")


def test_trials_with_one_rater_are_not_in_what_chance_gives(opened: Ballots) -> None:
    fill(opened, [{0: (3, 2, 1), 1: (3, 2, 1)}, {0: (1, 2, 3)}, {2: (1, 2, 3)}])
    found = tally.count(opened.design, opened.everybody(), resamples=100)
    assert (found.agreement, found.agreement_by_chance) == (0.0, 1 / 2)


def test_means_by_place_tell_who_clicks_from_left_to_right(opened: Ballots) -> None:
    for index in range(6):
        person = opened.start(f"p{index}")
        for trial, methods in person.shown:
            points = [0, 0, 0]
            for place, method in enumerate(methods):
                points[method] = 3 - place
            opened.vote(person.number, trial, 0, points)
    assert tally.count(opened.design, opened.everybody(), resamples=100).by_place == (3.0, 2.0, 1.0)


def test_scores(tmp_path: pathlib.Path, small: Design) -> None:
    scores = dataclasses.replace(small, mode="score")
    with contextlib.closing(ballots.begin(tmp_path, scores)) as store:
        fill(store, [{0: (5, 0, 2), 1: (4, 1, 2)}, {0: (5, 1, 3)}])
        found = tally.count(store.design, store.everybody())
    assert [row.mean for row in found.rows] == pytest.approx([14 / 3, 2 / 3, 7 / 3], abs=ATOL)
    table = np.array([[5, 0, 2, 4, 1, 2], [5, 1, 3, _, _, _]])
    assert found.agreement == pytest.approx(coincidences(table), abs=ATOL)
    assert found.agreement_overall is None
    assert found.agreement_by_chance is None


def test_w_of_a_published_example() -> None:
    """Zar gives rank sums 14.5, 21, 30.5, 6, 11, 3.5, 20, 11.5, 29, 28.5, 22.5, 36."""
    totals = stats.rankdata(ZAR, axis=1).sum(axis=0)
    assert totals.tolist() == [14.5, 21, 30.5, 6, 11, 3.5, 20, 11.5, 29, 28.5, 22.5, 36]
    found = tally.kendall_w(ZAR)
    assert found == pytest.approx(0.924, abs=5e-4)
    statistic = stats.friedmanchisquare(*ZAR.T).statistic
    assert found == pytest.approx(statistic / (3 * 11), abs=ATOL)


@pytest.mark.parametrize("seed", range(20))
def test_w_agrees_with_scipy_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(2, 9)), int(rng.integers(3, 8))
    values = rng.integers(0, 4, (m, n)) if seed % 2 else rng.random((m, n))
    found = tally.kendall_w(values)
    assert found == pytest.approx(stats.friedmanchisquare(*values.T).statistic / (m * (n - 1)))
    assert found is not None
    assert 0 <= found <= 1 + ATOL
    shuffled = rng.permuted(np.arange(n))
    assert tally.kendall_w(values[:, shuffled]) == pytest.approx(found)


def test_w_at_its_ends() -> None:
    assert tally.kendall_w(np.tile([1, 2, 3], (5, 1))) == 1.0
    assert tally.kendall_w(np.array([[1, 2, 3], [3, 2, 1]])) == 0.0
    assert tally.kendall_w(np.tile([1, 1, 3], (4, 1))) == pytest.approx(1.0)  # ties and all
    assert tally.kendall_w(np.ones((3, 3))) is None
    assert tally.kendall_w(np.array([[1, 2, 3]])) is None


def test_w_of_random_orders_is_one_over_the_raters() -> None:
    """What the table says of chance: the mean over all 6 × 6 × 6 sets of three rankings."""
    orders = list(itertools.permutations([1, 2, 3]))
    found = [tally.kendall_w(np.array(three)) for three in itertools.product(orders, repeat=3)]
    assert np.mean([w for w in found if w is not None]) == pytest.approx(1 / 3)


def coincidences(values: np.ndarray) -> float:
    """Krippendorff's alpha by its other definition: over a table of pairs of values."""
    units = [unit[np.isfinite(unit)] for unit in values.T]
    levels = np.unique(values[np.isfinite(values)])
    table = np.zeros((len(levels), len(levels)))
    for unit in units:
        for a, b in itertools.permutations(unit, 2):
            i, j = np.searchsorted(levels, [a, b])
            table[i, j] += 1 / (len(unit) - 1)
    n_c, n = table.sum(axis=0), table.sum()
    apart = (levels[:, None] - levels[None, :]) ** 2
    return 1 - (n - 1) * (table * apart).sum() / (n_c[:, None] * n_c[None, :] * apart).sum()


def test_alpha_of_a_published_example() -> None:
    assert tally.krippendorff_alpha(KRIPPENDORFF) == pytest.approx(0.849, abs=5e-4)


@pytest.mark.parametrize("seed", range(10))
def test_alpha_agrees_with_its_other_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (int(rng.integers(2, 7)), 12)).astype(float)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:2, 0] = (0, 5)
    assert tally.krippendorff_alpha(values) == pytest.approx(coincidences(values))
    # Neither the unit nor the zero of the scale matters.
    assert tally.krippendorff_alpha(values * 3 + 1e4) == pytest.approx(coincidences(values))


def test_alpha_at_its_ends() -> None:
    same = np.tile([0.0, 3.0, 5.0], (4, 1))
    assert tally.krippendorff_alpha(same) == 1.0
    assert tally.krippendorff_alpha(np.full((3, 3), 2.0)) is None
    assert tally.krippendorff_alpha(np.full((3, 3), np.nan)) is None
    alone = np.array([[1.0, _, 3.0], [_, 2.0, _]])
    assert tally.krippendorff_alpha(alone) is None


def test_the_interval_draws_people_not_votes() -> None:
    """Two raters who agree with nobody: means of a resample are 1, 2 or 3 by 1/4, 1/2, 1/4."""
    two = [Ballot(i, tuple((t, (p, 4 - p)) for t in range(50)), True) for i, p in enumerate((1, 3))]
    low, high = tally.interval(two, 2000, np.random.default_rng(0))
    assert low is not None
    assert high is not None
    assert low.tolist() == [1.0, 1.0]
    assert high.tolist() == [3.0, 3.0]


def test_the_interval_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(2, 0.5, 40)
    people = [Ballot(i, ((0, (m,)),), True) for i, m in enumerate(means)]
    low, high = tally.interval(people, 20_000, rng)
    assert low is not None
    assert high is not None
    witness = stats.bootstrap(
        (means,), np.mean, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    # The ends of two bootstraps differ by about 0.002 at this size.
    assert [low[0], high[0]] == pytest.approx([witness.low, witness.high], abs=0.01)


def test_a_rater_with_few_answers_weighs_little() -> None:
    people = [
        Ballot(0, tuple((t, (3, 1)) for t in range(99)), True),
        Ballot(1, ((0, (1, 3)),), False),
    ]
    low, high = tally.interval(people, 2000, np.random.default_rng(0))
    assert low is not None
    assert high is not None
    assert (low[0], high[0]) == (1.0, 3.0)
    assert np.isclose(np.mean([3.0] * 99 + [1.0]), 2.98)


def test_the_same_seed_gives_the_same_interval(opened: Ballots) -> None:
    fill(opened, [{0: p} for p in itertools.permutations((1, 2, 3))])
    assert tally.count(opened.design, opened.everybody(), seed=1) == tally.count(
        opened.design, opened.everybody(), seed=1
    )
    row = tally.count(opened.design, opened.everybody(), seed=1).rows[0]
    assert row.low is not None
    assert row.high is not None
    assert row.low < row.mean < row.high


def test_nothing_to_count(opened: Ballots) -> None:
    opened.start("x")
    with pytest.raises(TallyError, match="no answers yet, of 1 people who began"):
        tally.count(opened.design, opened.everybody())
    for resamples in (5, 10**15):
        with pytest.raises(TallyError, match=f"resamples is {resamples}"):
            tally.count(opened.design, opened.everybody(), resamples=resamples)
    with pytest.raises(TallyError, match="seed is -1"):
        tally.count(opened.design, opened.everybody(), seed=-1)
    fill(opened, [{0: (3, 2, 1)}])
    with pytest.raises(TallyError, match="nobody has answered every trial yet, of 2 people"):
        tally.count(opened.design, opened.everybody(), complete_only=True)


def test_the_table_in_all_its_forms(opened: Ballots) -> None:
    fill(opened, [dict.fromkeys(range(4), (3, 2, 1)), dict.fromkeys(range(4), (2, 3, 1)), {}])
    found = tally.count(opened.design, opened.everybody(), resamples=500, seed=2)
    assert tally.grid(found)[1:] == [
        ["alpha", "2.50", "2.00 to 3.00", "2", "8"],
        ["beta", "2.50", "2.00 to 3.00", "2", "8"],
        ["gamma", "1.00", "1.00 to 1.00", "2", "8"],
    ]
    text = tally.markdown(found, "python -m x")
    assert (
        "| method | user score | 95 % interval | raters | votes |\n|---|---:|---:|---:|---:|"
        in text
    )
    assert "| alpha | **2.50** | 2.00 to 3.00 | 2 | 8 |" in text
    assert "| gamma | 1.00 | 1.00 to 1.00 | 2 | 8 |" in text
    assert "places 1 to 3 give 3 to 1 points, 4 trials of 2 objects" in text
    assert "agreement: Kendall's W 0.75, mean over trials (by chance 0.50)" in text
    assert "- 1 more opened the study and answered nothing" in text
    raw = json.loads(json.dumps(tally.described(found), allow_nan=False))
    assert raw["rows"][0] == {
        "method": "alpha", "mean": 2.5, "low": 2.0, "high": 3.0, "raters": 2, "votes": 8,
            "given": [0, 4, 4],
    }  # fmt: skip
    assert raw["agreement"]["measure"] == "kendall_w"


def test_names_do_nothing_in_tables_and_spreadsheets(tmp_path: pathlib.Path) -> None:
    methods = ("=HYPERLINK(1)", "+a|b", '@c,"d"', "-e")
    design = Design("score", methods, ((" =x", "-1"),), 0, "Which?", "digest")
    with contextlib.closing(ballots.begin(tmp_path, design)) as store:
        fill(store, [{0: (1, 2, 3, 4)}])
        rows = list(csv.DictReader(io.StringIO(tally.votes_csv(design, store.everybody()))))
        text = tally.markdown(tally.count(store.design, store.everybody()), "x")
    assert [row["method"] for row in rows] == [f"'{name}" for name in methods]
    assert {(row["object"], row["sample"]) for row in rows} == {("' =x", "'-1")}
    for row in rows:
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row.values())
    assert "| +a\\|b | 2.00 |" in text


def test_the_file_of_votes(opened: Ballots, small: Design) -> None:
    fill(opened, [dict.fromkeys(range(4), (3, 2, 1)), {1: (1, 2, 3)}])
    opened.vote(2, 1, 1, (2, 1, 3))
    opened.finish(1)
    rows = list(csv.DictReader(io.StringIO(tally.votes_csv(opened.design, opened.everybody()))))
    assert tuple(rows[0]) == tally.VOTES
    assert len(rows) == 12 + 3
    assert {(row["rater"], row["complete"], row["finished"]) for row in rows} == {
        ("1", "1", "1"),
        ("2", "0", "0"),
    }
    shown = opened.start("person 1").shown
    last = [row for row in rows if row["rater"] == "2"]
    assert {row["changes"] for row in last} == {"1"}
    assert {row["method"]: row["points"] for row in last} == {
        "alpha": "2",
        "beta": "1",
        "gamma": "3",
    }
    position = [trial for trial, _ in shown].index(1)
    assert {row["trial_shown"] for row in last} == {str(position + 1)}
    places = {small.methods[m]: str(i) for i, m in enumerate(shown[position][1], 1)}
    assert {row["method"]: row["place_shown"] for row in last} == places


def test_agreement_by_chance_counts_the_raters_of_each_trial() -> None:
    """Four people at the first trial and two at the second: by chance (1/4 + 1/2) / 2."""
    orders = np.random.default_rng(0)
    found = []
    for m in (4, 2):
        drawn = [
            tally.kendall_w(np.stack([orders.permutation(3) + 1 for _ in range(m)]))
            for _ in range(4000)
        ]
        found.append(np.mean([w for w in drawn if w is not None]))
    # The mean of 4,000 has a standard error below 0.005.
    np.testing.assert_allclose(found, [1 / 4, 1 / 2], atol=0.02)
