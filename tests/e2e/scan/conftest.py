"""Repositories and the command, as the tests of the scan use them."""

from scan_lab import repository, scan

__all__ = ["repository", "scan"]
