"""Repositories and the command, as the tests of the scan use them."""

from scan_lab import folder, repository, scan

__all__ = ["folder", "repository", "scan"]
