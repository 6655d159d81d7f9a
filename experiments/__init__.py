"""One script per job: `python -m experiments.NAME --help`."""
