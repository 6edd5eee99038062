"""Decide: one event and one snapshot in, one decision out. Pure: no I/O, clock or chance."""
