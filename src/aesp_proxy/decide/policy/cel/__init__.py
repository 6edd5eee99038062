"""Conditions in the Common Expression Language: read, typed, bounded, compiled, indexed.

The way of an expression, a module a step: ``lexical`` (limits, before anything recursive
runs), ``parse`` (cel-python's grammar to our nodes), ``check`` (types against the declared
facts, to terms), ``cost`` (the worst case, refused at load), ``emit`` (terms to Python over
slots), ``atoms`` and ``index`` (which rules can match at all), ``condition`` (all of it for
one expression). Source: the CEL language definition, google/cel-spec ``doc/langdef.md``.
"""
