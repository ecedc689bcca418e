"""The heads."""
