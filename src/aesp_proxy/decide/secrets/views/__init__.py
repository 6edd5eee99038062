"""See through what a secret is wrapped in: gates say where to look, views say what is there.

``forms``    what each literal of a rule looks like in each wrapping: the gates
``table``    the views: what each shows, how far around a gate it looks
``radix``    base64, base32, hex, base 85
``escapes``  percent, JSON, C, HTML, quoted-printable, joined strings and fields
``letters``  reversed, rot13, spread, UTF-16, invisible characters, look-alikes
``packed``   gzip, zlib, Zstandard, Brotli, bzip2, xz, members of ZIP files
``runs``     long runs of digits, followed without a gate
``regions``  where gates have opened views, until the bytes behind them are there
``stream``   all of that for one stream
``lens``     the bounded graph: views of views; ``account`` what they may cost
"""
