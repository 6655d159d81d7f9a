"""RealDex in JAX: human-like grasping for the Shadow Hand, tested in simulation first."""
