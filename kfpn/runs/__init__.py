"""Reads and writes the work directory of a run: its files, checkpoints, lock and trained detector."""
