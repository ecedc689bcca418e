"""Converts detectors with TF-TRT, and reports what it would convert."""
