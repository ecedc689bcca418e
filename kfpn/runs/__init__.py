"""Keeps the folder of a run: its files, checkpoints, lock and trained detector."""
