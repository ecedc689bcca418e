"""Data sets as records, and the batches made of them."""
