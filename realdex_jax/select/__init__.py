"""Choosing grasps that a person would make: one protocol, a local and a remote scorer."""
