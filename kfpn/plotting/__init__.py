"""Draws boxes on images, the curves of a run, and the page that shows a pyramid, from arrays alone."""
