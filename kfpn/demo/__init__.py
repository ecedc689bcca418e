"""Offers a page in the browser to try a detector on: pictures go in, boxes and masks come out."""
