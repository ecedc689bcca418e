"""Trains detectors: the loop, its step, its optimizer, and what it writes."""
