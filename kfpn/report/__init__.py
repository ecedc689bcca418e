"""Writes a run's report: one HTML file that shows what a detector gets right and wrong, and two runs beside each other."""
