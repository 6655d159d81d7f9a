"""Datasets: records, the folder format, splits and the training pipeline."""
