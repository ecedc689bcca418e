"""Uses trained detectors: on image files, in several sizes, and stage by stage."""
