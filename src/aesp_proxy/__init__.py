"""AESP Proxy stands between an AI agent and everything outside its task."""

__version__ = "0.1.0"
