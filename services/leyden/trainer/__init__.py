"""The trainer service: turns credited groups into model versions, one optimiser step and checkpoint per batch."""
