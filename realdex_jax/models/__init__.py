"""Networks: the only package that imports flax."""
