"""What goes wrong in an expression: when it is read, and when it is evaluated."""

from __future__ import annotations


class ExpressionError(ValueError):
    """An expression is refused at load; ``line`` and ``column`` count from 1 inside its text."""

    def __init__(self, message: str, *, line: int = 1, column: int = 1, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.remedy = remedy


class EvaluationError(Exception):
    """An evaluation that has no value. The text names operations and facts, never values."""
