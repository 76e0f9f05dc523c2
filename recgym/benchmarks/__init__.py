"""Measurements of speed, memory and learning: what `recgym benchmark` prints."""
