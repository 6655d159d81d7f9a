"""Metrics that need no physics, the results contract, and reports."""
