"""credit: finished rollouts become training sequences, to the token, with their credit."""
