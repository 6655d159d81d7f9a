"""Loss terms of the grasp model; `realdex_jax.training.objective` sums them."""
