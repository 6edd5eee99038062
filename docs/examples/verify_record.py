"""Verify a record, or the proof of one event, as an outsider: nothing of aesp_proxy is used.

Written from docs/audit.md and the C2SP pages of tlog-proof, signed-note and tlog-cosignature.

    python verify_record.py batches DIRECTORY FIRST-KEY.pub [RECEIPT AGGREGATOR.pub]
    python verify_record.py proof PROOF.json HOST-KEY.pub [LOG.vkey [WITNESS.vkey ...]]

Needs Python 3.12 and `cryptography`, and for batches a zstd: the program, or a package of Python.
Prints what holds and ends with 0, or what does not and ends with 1.
"""

import base64
import json
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

ENDED, CLOCK_BACK = 2, 8  # flags of a header


class WrongError(Exception):
    """What does not hold."""


def need(holds: object, what: str) -> None:
    """Stop with ``what`` unless it holds."""
    if not holds:
        raise WrongError(what)


# msgpack: numbers from 0, texts, bytes and arrays, each in its shortest form and in no other
_FORMS = {0xD9: "B", 0xDA: ">H", 0xDB: ">I", 0xC4: "B", 0xC5: ">H", 0xC6: ">I"}
_FORMS |= {0xDC: ">H", 0xDD: ">I", 0xCC: "B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}


def unpack(data):
    """Read one value; whatever is not its one form is refused."""
    try:
        value, end = _read(data, 0)
    except (struct.error, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise WrongError("is not msgpack") from error
    need(end == len(data) and pack(value) == data, "is not in canonical form")
    return value


def _read(data, at):
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first in _FORMS:
        (size,) = struct.unpack_from(_FORMS[first], data, at)
        at += struct.calcsize(_FORMS[first])
    else:
        size = first & (0x1F if first & 0xE0 == 0xA0 else 0x0F)
    if 0xCC <= first <= 0xCF:
        return size, at
    if first & 0xE0 == 0xA0 or 0xD9 <= first <= 0xDB:
        return data[at : at + size].decode(), at + size
    if 0xC4 <= first <= 0xC6:
        return data[at : at + size], at + size
    need(first & 0xF0 == 0x90 or first in (0xDC, 0xDD), "is of another type")
    values = []
    for _ in range(size):
        value, at = _read(data, at)
        values.append(value)
    return values, at


def pack(value):
    """Write a value in its shortest form."""
    if isinstance(value, int):
        return bytes([value]) if value < 0x80 else _sized(value, (0xCC, 0xCD, 0xCE, 0xCF))
    if isinstance(value, str):
        data = value.encode()
        short, longer = 0xA0 if len(data) < 32 else None, (0xD9, 0xDA, 0xDB)
    elif isinstance(value, bytes):
        data, short, longer = value, None, (0xC4, 0xC5, 0xC6)
    else:
        data = b"".join(map(pack, value))
        short, longer = 0x90 if len(value) < 16 else None, (None, 0xDC, 0xDD)
    size = len(value) if isinstance(value, list) else len(data)
    return (_sized(size, longer) if short is None else bytes([short | size])) + data


def _sized(number, tags):
    for tag, form in zip(tags, ("B", ">H", ">I", ">Q"), strict=False):
        if tag and number >> (8 * struct.calcsize(form)) == 0:
            return bytes([tag]) + struct.pack(form, number)
    raise WrongError("is too large")


# Merkle trees: RFC 6962 section 2.1, inclusion as in RFC 9162 section 2.1.3.2
def node(left, right):
    """Hash two nodes."""
    return sha256(b"\x01" + left + right).digest()


def root_of(leaves):
    """Hash a tree."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node(root_of(leaves[:split]), root_of(leaves[split:]))


def root_from(leaf, index, size, path):
    """Give the root that a path leads to from leaf ``index`` of ``size``."""
    need(index < size, "the leaf is not in the tree")
    place, last, found = index, size - 1, leaf
    for step in path:
        need(last, "the path is too long")
        if place & 1 or place == last:
            found = node(step, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node(found, step)
        place, last = place >> 1, last >> 1
    need(not last, "the path is too short")
    return found


def leaf_of(entry):
    """Hash a leaf."""
    return sha256(b"\x00" + entry).digest()


# keys and signatures
def public_key(file):
    """Read a public key in PEM: its 32 bytes."""
    key = load_pem_public_key(Path(file).read_bytes())
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def signed(key, signature, message, what):
    """Check an Ed25519 signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature as error:
        raise WrongError(f"the signature of {what} fails") from error


def key_id(key):
    """Name a key."""
    return "k-" + sha256(key).digest()[:16].hex()


def header_of(data, signature, key):
    """Check a header's signature and give its values."""
    signed(key, signature, b"aesp-proxy batch header v1\x00" + data, "a header")
    values = unpack(data)
    need(len(values) == 22 and values[0] == 1, "a header of another format")
    need(values[3] == key_id(key), f"signed by {values[3]}, not by {key_id(key)}")
    return values


_FIELDS = [int] * 10 + [str] * 28 + [list] * 4


def row_of(data, origin, epoch, seq):
    """Read a record and check that it stands where it says."""
    values = unpack(data)
    need([type(value) for value in values] == _FIELDS, "has other fields")
    need(values[0] == 1, "a record of another version")
    need((values[10], values[1], values[2]) == (origin, epoch, seq), "a record is misplaced")
    return values


def inflate(body):
    """Inflate one zstd frame, by the package where it is there, else by the program."""
    try:
        import zstandard  # noqa: PLC0415

        return zstandard.ZstdDecompressor().decompress(body)
    except ImportError:
        done = subprocess.run(["zstd", "-dcq"], input=body, capture_output=True, check=False)
        need(not done.returncode, "the body is not zstd")
        return done.stdout


class Chain:
    """The batches of one host, fed in order."""

    def __init__(self, key):
        self.key, self.previous, self.hashes = key, bytes(32), []
        self.origin, self.records, self.lost = None, 0, 0
        self.open, self.newest_epoch, self.sealed = {}, 0, (0, 0, "")

    def feed(self, data):
        """Check one batch all through."""
        magic, header_size, body_size = struct.unpack_from("<8sII", data)
        end = 16 + header_size
        need(magic == b"AESPBAT1" and len(data) == end + 64 + body_size, "is no whole batch")
        header, body = header_of(data[16:end], data[end : end + 64], self.key), data[end + 64 :]
        _, origin, epoch, _, number, previous, first, count, since, until, *times = header[:13]
        root, body_size, size, body_hash, lost, dropped, _, _, flags = header[13:]
        self.origin = self.origin or origin
        need(origin == self.origin and number == len(self.hashes) + 1, "is not the next batch")
        need(previous == self.previous, "names another predecessor")
        need(len(body) == body_size and sha256(body).digest() == body_hash, "the body is another")
        self._in_time(*times, flags)
        if epoch:
            self._in_sequence(epoch, first, count, lost, flags)
        inflated = inflate(body)
        need(len(inflated) == size, "inflates to another size")
        rows = split(inflated, count)
        need(root_of([leaf_of(row) for row in rows]) == root, "the records are not those signed")
        read = [row_of(row, origin, epoch, seq) for seq, row in enumerate(rows, start=first)]
        need(not read or (read[0][3], read[-1][3]) == (since, until), "names other times")
        for row in read:
            self._handed_over(row, number)
        self.previous = sha256(data[16:end]).digest()
        self.hashes.append(self.previous)
        self.records += count
        self.lost += lost + dropped

    def _in_time(self, wall, mono, boot, flags):
        before_wall, before_mono, before_boot = self.sealed
        need(wall + 2_000_000_000 >= before_wall, "sealed before the batch before it")
        need(boot != before_boot or mono >= before_mono, "sealed before the batch before it")
        need(not flags & CLOCK_BACK, "the host says that its clock went back")
        self.sealed = (wall, mono, boot)

    def _in_sequence(self, epoch, first, count, lost, flags):
        need(epoch in self.open or epoch > self.newest_epoch, "an ended epoch comes again")
        need(first == self.open.get(epoch, 1) + lost, "records are missing before it")
        self.newest_epoch = max(self.newest_epoch, epoch)
        self.open[epoch] = first + count
        if flags & ENDED:
            del self.open[epoch]

    def _handed_over(self, row, number):
        if row[11] == "lifecycle" and row[12] == "audit.key_rotated":
            told = dict(row[40])
            need(told["from_batch"] == str(number + 1), "a key is handed over for another batch")
            self.key = bytes.fromhex(told["public_key"])


def split(inflated, count):
    """Take an inflated body apart: lengths, two bytes of each leaf hash (a hint only), rows."""
    lengths, at = struct.unpack_from(f"<{count}I", inflated), 6 * count
    rows = []
    for length in lengths:
        rows.append(inflated[at : at + length])
        at += length
    need(at == len(inflated), "the rows are not what their lengths say")
    return rows


def check_batches(directory, key, receipt=None, aggregator=None):
    """Check all batches of a directory from the first on, against a receipt where one is given."""
    chain = Chain(public_key(key))
    for file in sorted(Path(directory).glob("*.batch")):
        try:
            need(int(file.stem.partition("-")[0]) == len(chain.hashes) + 1, "is not the next batch")
            chain.feed(file.read_bytes())
        except (WrongError, struct.error) as error:
            raise WrongError(f"{file.name}: {error}") from error
    need(chain.hashes, "there is no batch")
    if receipt:
        statement, signature = unpack(Path(receipt).read_bytes())
        signed(public_key(aggregator), signature, b"aesp-proxy receipt v1\x00" + statement, receipt)
        version, origin, number, named, *_ = unpack(statement)
        need((version, origin) == (1, chain.origin), "the receipt is for another host")
        need(number <= len(chain.hashes), f"truncated: the receipt names batch {number}")
        need(chain.hashes[number - 1] == named, "the receipt names another history")
    lost = f", {chain.lost} lost as the host itself declares" if chain.lost else ""
    return f"{chain.records} records in {len(chain.hashes)} batches of {chain.origin}{lost}"


def check_proof(file, key, log=None, *witnesses):
    """Check the proof of one event: the host's signature and, by its keys, the log."""
    said = json.loads(Path(file).read_bytes())
    data, signature, record = (bytes.fromhex(said[k]) for k in ("header", "signature", "record"))
    header = header_of(data, signature, public_key(key))
    origin, epoch, first, count, root = header[1], header[2], header[6], header[7], header[13]
    path, index = [bytes.fromhex(step) for step in said["path"]], said["leaf_index"]
    need(root_from(leaf_of(record), index, count, path) == root, "the record is not in the batch")
    row = row_of(record, origin, epoch, first + index)
    told = f"{origin}/{epoch}/{row[2]} in batch {header[4]}: {row[15] or row[11]} {row[20]}"
    if log:
        told += f"; {check_log(said['log'], data + signature, log, witnesses)}"
    return told


def check_log(proof, entry, log, witnesses):
    """Check that a log holds an entry (C2SP tlog-proof), cosigned by each of ``witnesses``."""
    need(proof, "the log did not hold the batch yet")
    head, _, note = proof.partition("\n\n")
    first, index, *path = head.split("\n")
    need(first == "c2sp.org/tlog-proof@v1" and index.startswith("index "), "no proof of a log")
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    name, size, root, *_ = text.split("\n")
    for file in (log, *witnesses):
        check_note(text, lines, Path(file).read_text().split()[0], name if file == log else None)
    index, steps = int(index.removeprefix("index ")), [base64.b64decode(step) for step in path]
    found = root_from(leaf_of(entry), index, int(size), steps)
    need(found == base64.b64decode(root), "the batch is not in the log")
    return f"entry {index} of {size} of {name}, {len(witnesses)} witnesses"


def check_note(text, lines, vkey, log_name):
    """Check that the key signed the note: a log's (type 1), or a witness's with its time (4)."""
    name, number, key = vkey.split("+", 2)
    key = base64.b64decode(key)
    need(sha256(name.encode() + b"\n" + key).digest()[:4].hex() == number, f"{name} is no key")
    need(log_name in (None, name), f"the checkpoint is of {log_name}, not of {name}")
    need(key[0] == (4 if log_name is None else 1), f"{name} is a key of another kind")
    for line in lines.splitlines():
        _, signer, blob = line.split(" ")
        blob = base64.b64decode(blob)
        if signer == name and blob[:4].hex() == number:
            message, blob = text.encode(), blob[4:]
            if log_name is None:
                time, blob = int.from_bytes(blob[:8]), blob[8:]
                message = f"cosignature/v1\ntime {time}\n".encode() + message
            return signed(key[1:], blob, message, name)
    raise WrongError(f"{name} has not signed the checkpoint")


def main(what, *arguments):
    """Check what the arguments name."""
    try:
        held = {"batches": check_batches, "proof": check_proof}[what](*arguments)
    except (WrongError, LookupError, ValueError, TypeError, AttributeError, OSError) as error:
        print(f"WRONG: {error}")
        return 1
    print(f"holds: {held}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 3 else __doc__)
