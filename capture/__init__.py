"""Four depth cameras: recorded, calibrated, synchronised, and what they saw annotated."""
