"""PointNet encoders: a shared network per point, then the maximum over points.

After Qi et al. 2017 and the encoders of RealDex (section 4.1), with layer instead of batch
normalisation: small batches, no running statistics to save, and the same function in training and
use.
"""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

SCALE = 10.0
"""Clouds enter in units of 10 cm, so that coordinates are of order one."""


class PointNet(nn.Module):
    """Per-point layers and a maximum over points."""

    widths: Sequence[int] = (64, 128, 256)

    @nn.compact
    def __call__(
        self, points: Float[Array, "*b n 3"]
    ) -> tuple[Float[Array, "*b f"], Float[Array, "*b n c"]]:
        """Encodes a cloud.

        Args:
            points: Centred cloud, metres.

        Returns:
            Global feature (does not depend on the order of points) and the first layer's feature
            of each point.
        """
        x = points * SCALE
        local = x
        last = len(self.widths) - 1
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"dense_{i}")(x)
            x = nn.LayerNorm(name=f"norm_{i}")(x)
            if i < last:  # as in the original, the feature before the maximum may be negative
                x = nn.relu(x)
            if i == 0:
                local = x
        return x.max(axis=-2), local


class Residual(nn.Module):
    """A residual block scaled and shifted by a condition (FiLM, Perez et al. 2018)."""

    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b w"], condition: Float[Array, "*b c"]
    ) -> Float[Array, "*b w"]:
        """Adds a conditioned two-layer correction to `x`."""
        y = nn.LayerNorm(name="norm")(x)
        scale, shift = halves(nn.Dense(2 * self.width, name="film")(condition))
        y = nn.relu(y * (1.0 + scale) + shift)
        y = nn.relu(nn.Dense(self.width, name="dense_0")(y))
        # Starting as the identity lets depth be chosen freely.
        y = nn.Dense(self.width, name="dense_1", kernel_init=nn.initializers.zeros)(y)
        return x + y


def halves(x: Float[Array, "*b w"]) -> tuple[Array, Array]:
    """Halves of the last axis."""
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]
