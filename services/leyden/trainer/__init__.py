"""The trainer: credited groups in, model versions out. One optimiser step and one checkpoint per batch of groups."""
