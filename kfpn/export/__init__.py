"""Exports trained detectors to the formats that servers run: one folder for each product."""
