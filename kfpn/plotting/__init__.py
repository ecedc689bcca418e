"""Draws pictures: boxes on images, curves of a run, pages of a pyramid."""
