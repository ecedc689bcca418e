"""Knows the checkpoints of those who trained them: torchvision, detectron2, keras.applications."""
