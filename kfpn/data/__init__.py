"""Turns files into batches: formats, checks, the plan, augmentation and the input pipeline."""
