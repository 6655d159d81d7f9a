"""A cap that holds, whatever is reported."""

import contextlib
import math
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realdex_jax.select import budget
from realdex_jax.select.budget import Budget, BudgetError, Prices
from tests.realdex_jax.select.fake_gemini import png


def test_costs_are_per_million_tokens():
    assert Prices(0.3, 2.5).cost(1_000_000, 2_000_000) == pytest.approx(5.3)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_numbers_that_are_no_money_are_refused(bad):
    with pytest.raises(BudgetError, match="input price"):
        Prices(bad, 1.0)
    with pytest.raises(BudgetError, match="cap"):
        Budget(bad)
    with pytest.raises(BudgetError, match="worst case"):
        Budget(1.0).reserve(bad)


def test_a_request_that_may_cost_more_than_is_left_is_refused():
    money = Budget(1.0)
    with money.reserve(0.6) as first:
        with pytest.raises(BudgetError, match=r"may cost 0\.5, and 0\.4 is left of the cap 1"):
            money.reserve(0.5)
        first.settle(0.1)
    assert money.spent == pytest.approx(0.1)
    assert money.reserved == 0.0
    money.reserve(0.9)
    with pytest.raises(BudgetError):
        money.reserve(1e-9)


def test_a_request_that_ends_badly_is_charged_in_full_and_once():
    money = Budget(1.0)
    reservation = money.reserve(0.25)
    with pytest.raises(KeyError), reservation:
        raise KeyError
    assert money.spent == 0.25
    reservation.settle(0.0)
    assert money.spent == 0.25


@pytest.mark.parametrize(
    ("own", "reported", "charged"),
    [
        (0.1, 0.0, 0.1),
        (0.1, 0.2, 0.2),
        (0.1, 99.0, 0.5),
        (0.1, math.inf, 0.5),
        (0.1, -99.0, 0.1),
        (0.1, math.nan, 0.5),
        (math.inf, 0.0, 0.5),
        (-1.0, -1.0, 0.0),
    ],
)
def test_a_charge_is_the_greater_count_within_the_reservation(own, reported, charged):
    reservation = Budget(1.0).reserve(0.5)
    assert reservation.charged == 0.0
    assert reservation.settle(own, reported) == pytest.approx(charged)
    reservation.settle(0.5)  # only the first counts
    assert reservation.charged == pytest.approx(charged)


def test_sums_are_exact():
    money = Budget(0.3)
    for _ in range(3):
        money.reserve(0.1).settle(0.1)  # 0.1 + 0.1 + 0.1 > 0.3 in floats
    assert money.spent == 0.3


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0, 10),
    st.lists(st.tuples(st.floats(0, 3), st.floats(), st.floats(), st.booleans())),
)
def test_spent_and_reserved_never_exceed_the_cap(cap, requests):
    money = Budget(cap)
    for worst, own, reported, settled in requests:
        try:
            reservation = money.reserve(worst)
        except BudgetError:
            continue
        if settled:
            reservation.settle(own, reported)
        assert money._spent + money._reserved <= money._cap


class Slow(Budget):
    """Threads meet between the look at what is reserved and the change of it."""

    _held = 0

    @property
    def _reserved(self):
        found = self._held
        time.sleep(0.001)
        return found

    @_reserved.setter
    def _reserved(self, amount):
        self._held = amount


def test_threads_wait_for_each_other():
    """Without the lock, all of them would see the same rest of the cap."""
    money, granted = Slow(1.0), []
    ready = threading.Barrier(60)

    def request():
        ready.wait()
        with contextlib.suppress(BudgetError):
            granted.append(money.reserve(0.1))

    threads = [threading.Thread(target=request) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 10


def test_a_ledger_holds_the_cap_over_all_runs(tmp_path):
    path = tmp_path / "new" / "spent.txt"
    first = Budget(1.0, path)
    first.reserve(0.3).settle(0.2)
    open_one = first.reserve(0.5)  # and the process dies
    with path.open("a") as file:
        file.write("1234")  # in the middle of a line
    again = Budget(1.0, path)
    assert again.spent == pytest.approx(0.7)
    with pytest.raises(BudgetError, match=r"0\.3 is left"):
        again.reserve(0.31)
    again.reserve(0.25).settle(0.0)
    open_one.settle(0.1)
    assert Budget(1.0, path).spent == pytest.approx(0.3)
    # One that spent more than the cap now allows gets nothing, and no error until it asks.
    assert Budget(0.1, path).spent == pytest.approx(0.3)
    with pytest.raises(BudgetError, match="left"):
        Budget(0.1, path).reserve(1e-9)


def test_runs_at_the_same_time_share_a_ledger(tmp_path):
    one, two = (Budget(1.0, tmp_path / "spent.txt") for _ in range(2))
    held = one.reserve(0.6)
    with pytest.raises(BudgetError, match=r"0\.4 is left"):
        two.reserve(0.5)
    held.settle(0.1)
    two.reserve(0.5).settle(0.5)
    with pytest.raises(BudgetError, match=r"0\.4 is left"):
        one.reserve(0.45)
    assert Budget(1.0, tmp_path / "spent.txt").spent == pytest.approx(0.6)


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "spent.txt").write_text("twelve\n")
    with pytest.raises(BudgetError, match=r"spent\.txt is no ledger"):
        Budget(1.0, tmp_path / "spent.txt")
    with pytest.raises(BudgetError, match="cannot write"):
        Budget(1.0, tmp_path / "spent.txt" / "inside").reserve(0.1)


def test_a_thousand_at_once_stay_below_the_cap():
    money = Budget(1.0)
    truth, sent, most = [], [], []
    ready = threading.Barrier(1000)

    def request(number):
        chance = random.Random(number)
        worst = chance.uniform(0.001, 0.003)
        ready.wait()
        try:
            with money.reserve(worst) as reservation:
                sent.append(number)
                most.append(money._spent + money._reserved)
                true = worst * chance.random()
                truth.append(true)
                reservation.settle(true, chance.choice([0.0, -1.0, 1e9, math.nan, true]))
        except BudgetError:
            pass

    threads = [threading.Thread(target=request, args=(i,)) for i in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= money._cap
    assert sum(truth) <= money.spent + 1e-9
    assert money.spent <= money.cap
    assert money.reserved == 0.0
    assert 300 < len(sent) < 1000  # some were sent, and the cap did bite


def test_pictures_count_by_their_size():
    assert budget.picture_tokens(png(1)) == budget.PICTURE_TOKENS
    assert budget.picture_tokens(png(1, side=1024)) == 16 * budget.TILE_TOKENS
    for bad in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(40)):
        with pytest.raises(BudgetError, match="no PNG"):
            budget.picture_tokens(bad)
    huge = png(1)[:16] + (5000).to_bytes(4, "big") + png(1)[20:]
    with pytest.raises(BudgetError, match="5000 x 64 pixels; at most 4096"):
        budget.picture_tokens(huge)
