"""Handles steps whose loss is not finite: refuses them, keeps them, finds the layer that went first."""
