"""Figures of this product beside its peers, taken in one run and told as ratios.

Each module with a ``main`` stands alone (``python -m benchmarks.NAME --json``);
``python -m benchmarks`` runs them all and writes the report.
"""
