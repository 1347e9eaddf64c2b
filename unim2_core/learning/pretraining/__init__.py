"""Pre-training of the small backbone, without a label."""
