"""Reads files of weights safely, whatever their format."""
