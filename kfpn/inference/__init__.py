"""Uses trained detectors: on image files and data sets, in several sizes, and stage by stage."""
