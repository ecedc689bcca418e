"""Handles steps whose loss is not finite: skips or stops at them, records them, finds the layer that failed first."""
