"""From a trained detector to what servers run."""
