"""The embedded stores: a directory of batches and three SQLite files, behind the ports."""
