"""The runtime checker of types and array shapes that the test suite puts on the packages.

Numbers are checked by kind, not by class: an int serves as a float, and NumPy's scalars serve as
Python's.
"""

import beartype
import numpy as np

_NUMBERS = beartype.FrozenDict(
    {
        int: int | np.integer,
        float: float | int | np.floating | np.integer,
        bool: bool | np.bool_,
    }
)

check = beartype.beartype(conf=beartype.BeartypeConf(hint_overrides=_NUMBERS))
