"""What a remote scorer may spend: a cap that holds whatever the other side says it used.

Before a request is sent, its worst case is reserved: every byte of text counts as a token, every
picture as the most tokens a picture of its size can have, and the reply as the most tokens it may
have. A request whose worst case does not fit under the cap is not sent. Afterwards it is settled,
never above the reservation. So what was sent costs, by that count, at most the cap. With a ledger,
a file, that holds for all runs that name it: what was reserved when a process died counts as spent.
"""

import contextlib
import dataclasses
import fcntl
import math
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from realdex_jax.errors import RealdexError

MAX_SIDE = 4096
"""Longest side of a picture that is sent, in pixels."""
TILE, TILE_TOKENS, PICTURE_TOKENS = 256, 258, 2240
"""Gemini counts a picture as tiles of at least `TILE` pixels a side, `TILE_TOKENS` each, or, newer
models, as at most `PICTURE_TOKENS` whatever its size; the greater of the two is the worst case."""

PICO = 10**12
"""Money is counted in whole millionths of a millionth, so that sums are exact."""


class BudgetError(RealdexError):
    """A request that might cost more than is left, or a price that is none."""


@dataclasses.dataclass(frozen=True)
class Prices:
    """Prices of a model per million tokens, in any one currency."""

    input: float
    """Of what is sent: text and pictures."""
    output: float
    """Of what is written, thoughts included."""

    def __post_init__(self) -> None:
        """Refuses what is no price."""
        for name, price in dataclasses.asdict(self).items():
            if not 0 <= price < math.inf:
                raise BudgetError(f"{name} price {price!r} per million tokens; it is at least 0")

    def cost(self, sent: int, written: int) -> float:
        """Cost of so many tokens."""
        return (self.input * sent + self.output * written) / 1e6


def picture_tokens(picture: bytes) -> int:
    """The most tokens that a PNG can count as.

    Raises:
        BudgetError: It is no PNG, or too large.
    """
    if picture[:8] != b"\x89PNG\r\n\x1a\n" or picture[12:16] != b"IHDR" or len(picture) < 33:
        raise BudgetError("it has no picture, or one that is no PNG")
    width, height = struct.unpack(">II", picture[16:24])
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise BudgetError(f"its picture has {width} x {height} pixels; at most {MAX_SIDE} a side")
    return max(PICTURE_TOKENS, TILE_TOKENS * math.ceil(width / TILE) * math.ceil(height / TILE))


class Budget:
    """Money for requests, shared by any number of threads."""

    def __init__(self, cap: float, ledger: Path | None = None) -> None:
        """Starts with what the ledger says was spent.

        Args:
            cap: Most that may be spent, in the currency of the prices.
            ledger: A file that outlives the process, and that others may use at the same time.

        Raises:
            BudgetError: The cap is no amount, or the ledger cannot be read or is none.
        """
        if not 0 <= cap < math.inf:
            raise BudgetError(f"cap {cap!r}; it is at least 0 and finite")
        self._cap = math.floor(cap * PICO)
        self._ledger = None if ledger is None else Ledger(ledger)
        self._spent = 0 if self._ledger is None else self._ledger.sum()
        self._reserved = 0
        self._lock = threading.Lock()

    @property
    def cap(self) -> float:
        """Most that may be spent."""
        return self._cap / PICO

    @property
    def spent(self) -> float:
        """What settled requests were charged."""
        return self._spent / PICO

    @property
    def reserved(self) -> float:
        """Worst case of the requests under way."""
        return self._reserved / PICO

    def reserve(self, worst: float) -> "Reservation":
        """Sets aside the worst case of one request.

        Raises:
            BudgetError: It does not fit under the cap beside what is spent and reserved.
        """
        if not 0 <= worst < math.inf:
            raise BudgetError(f"worst case {worst!r}; it is at least 0 and finite")
        amount = math.ceil(worst * PICO)
        with self._lock:
            left = self._cap - self._spent - self._reserved
            if amount <= left and self._ledger is not None:
                left = self._ledger.reserve(amount, self._cap)
            if amount > left:
                raise BudgetError(
                    f"the next request may cost {worst:.4g}, and {left / PICO:.4g} is left of the "
                    f"cap {self.cap:.4g}"
                )
            self._reserved += amount
        return Reservation(self, amount)

    def _settle(self, amount: int, charge: int) -> None:
        with self._lock:
            self._reserved -= amount
            self._spent += charge
            if self._ledger is not None:
                self._ledger.add(charge - amount)


class Ledger:
    """Amounts in a file, one whole number of `PICO` a line, only ever added."""

    def __init__(self, path: Path) -> None:
        """Names the file, which need not be there."""
        self._path = path

    def sum(self) -> int:
        """All amounts; a line that a dying process left unfinished is none.

        Raises:
            BudgetError: It cannot be read, or a line is no number.
        """
        try:
            return self._sum(self._path.read_bytes() if self._path.exists() else b"")
        except OSError as error:
            raise BudgetError(f"cannot read what was spent from {self._path}: {error}") from None

    def add(self, amount: int) -> None:
        """Adds an amount; it is on the disk when this returns.

        Raises:
            BudgetError: It cannot be written.
        """
        with self._locked() as descriptor:
            self._write(descriptor, amount)

    def reserve(self, amount: int, cap: int) -> int:
        """Adds an amount if the sum stays within the cap, whoever else adds.

        Returns:
            What was left of the cap before; if less than the amount, nothing was added.

        Raises:
            BudgetError: It cannot be read or written.
        """
        with self._locked() as descriptor:
            left = cap - self._sum(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
            if amount <= left:
                self._write(descriptor, amount)
        return left

    def _sum(self, text: bytes) -> int:
        try:
            return sum(int(line) for line in text.split(b"\n")[:-1] if line)
        except ValueError as error:
            raise BudgetError(f"{self._path} is no ledger of what was spent: {error}") from None

    def _write(self, descriptor: int, amount: int) -> None:
        os.write(descriptor, f"\n{amount}\n".encode())  # ends what was left unfinished
        os.fsync(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BudgetError(f"cannot write what is spent to {self._path}: {error}") from None


class Reservation:
    """Money set aside for one request; left unsettled, all of it is charged.

    Use it as a context: a request that ends in an exception may have been billed.
    """

    def __init__(self, budget: Budget, amount: int) -> None:
        """Made by `Budget.reserve`."""
        self._budget = budget
        self._amount = amount
        self._charge = 0
        self._open = True

    @property
    def amount(self) -> float:
        """What was set aside."""
        return self._amount / PICO

    @property
    def charged(self) -> float:
        """What was charged; nothing while it is open."""
        return self._charge / PICO

    def settle(self, own: float, reported: float = 0.0) -> float:
        """Charges the request, and gives the rest back; only the first call counts.

        Args:
            own: The most it can have cost by our own count of what came back.
            reported: What the other side says it cost; counts if more than our own count.

        Returns:
            The charge, from 0 to the amount reserved, whatever was given.
        """
        claims = [claim for claim in (own, reported) if not math.isnan(claim)]
        claim = max(claims) if len(claims) == 2 else self.amount
        charge = self._amount
        if claim < self.amount:
            charge = min(self._amount, math.ceil(max(claim, 0.0) * PICO))
        with self._budget._lock:
            first, self._open = self._open, False
        if first:
            self._charge = charge
            self._budget._settle(self._amount, charge)
        return charge / PICO

    def __enter__(self) -> "Reservation":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Charges all of it, unless it was settled."""
        self.settle(self.amount)
