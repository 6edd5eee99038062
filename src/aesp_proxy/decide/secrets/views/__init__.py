"""See through what a secret is wrapped in: gates say where to look, views say what is there.

``forms``    what each literal of a rule looks like in each wrapping: the gates
``radix``    base64, base32, hex, base85
``escapes``  percent, JSON, C, HTML, quoted-printable, joined strings and fields
``letters``  reversed, rot13, spaced, UTF-16, invisible characters, look-alikes
``packed``   gzip, zlib, zstd, brotli, bzip2, xz, ZIP members
``lens``     the bounded graph: which views are opened, how deep, how much
"""
