"""Compares what the network says with the ground truth: matching, targets and losses, as pure functions."""
