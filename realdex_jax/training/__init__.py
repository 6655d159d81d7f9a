"""Training: state, objective, loop, checkpoints and logs."""
