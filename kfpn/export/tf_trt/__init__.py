"""Converts detectors with TF-TRT, and tells what it would convert."""
