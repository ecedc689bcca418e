"""Times exported models on the same image."""
