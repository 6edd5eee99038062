"""The agent's own namespaces, with no route but to the proxy; standard library only.

Run by the reaper, which starts with ``python -I -S`` and so must load little: records
here are named tuples, as ``dataclasses`` costs more than all the rest.
"""
