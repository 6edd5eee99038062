"""Formats of transparency logs as C2SP specifies them; pure, and nothing of our own making."""
