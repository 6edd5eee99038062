"""Measure what is found and what is found wrongly, beside other scanners.

*Recall*: samples of every rule of the pack, each in every wrapping of ``wrappings``, sent
through the scanner as a body. A body in which anything is found is one that is stopped,
so anything found counts. *False alarms*: what is found in the traffic of ``honest``, which
holds no secret but private keys of tests; these are told apart by reading them.

The samples are those the rules come with: for ours, recall says what the wrapping costs
and not what a rule misses; what others miss may also be a kind of token they do not know.
So theirs is told over the samples they find as they are, too.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from aesp_proxy.daemon.pack_files import read_packs
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from benchmarks import harness
from benchmarks.alarms import Alarms, alarms_in
from benchmarks.harness import Budget, Figures, Result
from benchmarks.honest import MB, documents
from benchmarks.recall import WAYS, Sample, Sent, samples, sent
from benchmarks.secret_peers import AbsentError, Peer, peers
from benchmarks.wrappings import PLAIN, WRAPPINGS

KEY = b"a key for the benchmark of scans"
ENDINGS = {"zip": ".zip", "tar.gz": ".tar.gz", "gzip file": ".gz"}
HONEST_BYTES_MIN = 100 * MB
HONEST_SHARE_QUICK = 0.05
HONEST_BYTES_OF_PEERS = 24 * 1024
HONEST_EVERY_OF_PEERS = 2
RULES_OF_PEERS = 60
RULES_OF_PEERS_QUICK = 12
RECALL_MIN = 0.98
MISSED_TOLD = 8


def measure(options: harness.Options) -> Result:
    """Measure ours on everything and the peers on a part of it."""
    rules = read_packs()
    scanner = SecretScanner(rules, KEY)
    taken = list(samples(scanner, rules))
    _say(f"{len(taken)} samples in {len(WAYS)} ways")
    ways = list(sent(scanner, taken))
    share = HONEST_SHARE_QUICK if options.quick else 1.0
    _say("honest traffic")
    alarms = alarms_in(scanner, documents(share=share))
    result = Result(name="quality", figures=_recall(ways))
    result.figures["honest traffic"] = _told(alarms)
    result.notes = [f"false alarm: {line}" for line in alarms.lines()]
    result.notes += [
        f"missed in {way!r}: {len(names)} kinds with a prefix ({', '.join(names[:MISSED_TOLD])})"
        for way, names in missed(ways).items()
    ]
    _ask_peers(result, options, rules, taken)
    result.run = {
        "rules": len(rules), "samples": len(taken), "ways": len(WAYS),
        "honest_bytes": alarms.bytes_seen, "private_keys_of_tests": alarms.real_keys,
    }  # fmt: skip
    _judge(result, ways, alarms, quick=options.quick)
    return result


def _recall(ways: Sequence[Sent]) -> dict[str, Figures]:
    figures: dict[str, Figures] = {}
    for way, single in WAYS.items():
        rows = [each for each in ways if each.way == way]
        figures[way] = {"ours": _part(rows), "ours_prefixed": _part(_prefixed(rows))}
        figures[way]["single"] = float(single)
    return figures


def _prefixed(rows: Sequence[Sent]) -> list[Sent]:
    return [each for each in rows if each.sample.prefixed]


def _part(rows: Sequence[Sent]) -> float:
    return sum(each.found for each in rows) / max(1, len(rows))


def missed(ways: Sequence[Sent]) -> dict[str, list[str]]:
    """Return, for each single wrapping, the rules of prefixed kinds that are missed in it."""
    told: dict[str, set[str]] = {}
    for each in _prefixed(ways):
        if WAYS[each.way] and not each.found:
            told.setdefault(each.way, set()).add(each.sample.rule)
    return {way: sorted(names) for way, names in told.items()}


def _told(alarms: Alarms) -> Figures:
    mb = alarms.bytes_seen / MB
    figures = {"mb": mb, "mb_s": mb / max(alarms.cpu_s, 1e-9)}
    for word in ("critical", "error", "warning", "info"):
        figures[f"false_{word}"] = float(alarms.of_severity(word))
    return figures


# --- peers ---------------------------------------------------------------------------------


def _ask_peers(
    result: Result, options: harness.Options, rules: Sequence[Rule], taken: Sequence[Sample]
) -> None:
    try:
        found = peers(install=options.install)
    except AbsentError as error:
        result.notes.append(f"other scanners: {error}")
        return
    count = RULES_OF_PEERS_QUICK if options.quick else RULES_OF_PEERS
    step = max(1, len(rules) // count)
    names = {rule.id for rule in rules[::step]}
    part = [sample for sample in taken if sample.number == 0 and sample.rule in names]
    with tempfile.TemporaryDirectory() as folder:
        bodies, honest = Path(folder, "bodies"), Path(folder, "honest")
        _write_bodies(bodies, part)
        honest_bytes = _write_honest(honest)
        for name, peer in found.items():
            _say(name)
            try:
                _ask(result, name, peer, bodies, honest, honest_bytes, part)
            except (AbsentError, OSError, ValueError) as error:
                result.notes.append(f"{name}: {error}")
    result.notes.append(
        f"others: {len(part)} samples, one a rule; {honest_bytes / MB:.1f} MB of honest traffic"
    )


def _write_bodies(folder: Path, part: Sequence[Sample]) -> None:
    folder.mkdir()
    for number, sample in enumerate(part):
        for way, wrapping in enumerate(WRAPPINGS):
            if not wrapping.encoding:
                ending = ENDINGS.get(wrapping.name, ".txt")
                (folder / f"{way}-{number}{ending}").write_bytes(sample.body(wrapping))


def _write_honest(folder: Path) -> int:
    folder.mkdir()
    total = 0
    seen: Counter[str] = Counter()
    for number, document in enumerate(documents(share=HONEST_SHARE_QUICK)):
        seen[document.kind] += 1  # of each kind the first is among them
        if seen[document.kind] % HONEST_EVERY_OF_PEERS == 1:
            data = document.data[:HONEST_BYTES_OF_PEERS]
            (folder / f"{number}{Path(document.name).suffix or '.txt'}").write_bytes(data)
            total += len(data)
    return total


def _ask(
    result: Result,
    name: str,
    peer: Peer,
    bodies: Path,
    honest: Path,
    honest_bytes: int,
    part: Sequence[Sample],
) -> None:
    told = peer(bodies)
    found: dict[str, set[int]] = {}
    for file in told.files:
        way, _, number = file.partition(".")[0].partition("-")
        found.setdefault(WRAPPINGS[int(way)].name, set()).add(int(number))
    known = found.get(PLAIN.name, set())
    for wrapping in WRAPPINGS:
        if wrapping.encoding:
            continue
        caught = found.get(wrapping.name, set())
        figures = result.figures[wrapping.name]
        figures[name] = len(caught) / len(part)
        figures[f"{name}_of_known"] = len(caught & known) / max(1, len(known))
    alarms = peer(honest)
    result.figures["honest traffic"] |= {
        f"{name}_false_a_mb": sum(alarms.files.values()) / (honest_bytes / MB),
        f"{name}_mb_s": honest_bytes / MB / max(alarms.cpu_s, 1e-9),
    }


# --- verdict -------------------------------------------------------------------------------


def _judge(result: Result, ways: Sequence[Sent], alarms: Alarms, *, quick: bool) -> None:
    single = _prefixed([each for each in ways if WAYS[each.way]])
    worst = min(
        (_part([each for each in single if each.way == way]), way)
        for way, is_single in WAYS.items()
        if is_single
    )
    result.notes.insert(
        0, f"the single wrapping with the lowest recall: {worst[1]}, {worst[0]:.3f}"
    )
    result.ratios |= _against_peers(result.figures)
    result.budgets = [
        Budget(
            name="recall in single wrappings, kinds with a prefix",
            value=_part(single), limit=RECALL_MIN, at_least=True,
        ),
        Budget(
            name="false alarms of critical rules in honest traffic",
            value=float(alarms.of_severity("critical")), limit=0,
        ),
    ]  # fmt: skip
    if not quick:
        result.budgets.append(
            Budget(
                name="honest traffic, MB",
                value=alarms.bytes_seen / MB, limit=HONEST_BYTES_MIN / MB, at_least=True,
            )
        )  # fmt: skip


def _against_peers(figures: Mapping[str, Figures]) -> Figures:
    """Return our mean recall over the single wrappings by that of the best of the others."""
    names = {
        name.removesuffix("_of_known")
        for figure in figures.values()
        for name in figure
        if name.endswith("_of_known")
    }
    rows = [figures[each.name] for each in WRAPPINGS if each.single and not each.encoding]
    means = {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}
    ours = sum(row["ours"] for row in rows) / len(rows)
    return {
        f"recall in single wrappings by {name}'s": ours / mean
        for name, mean in means.items()
        if mean
    }


def _say(what: str) -> None:
    sys.stderr.write(f"\r{what:<60}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, print; 1 when a budget is missed."""
    given = sys.argv[1:] if arguments is None else arguments
    options = harness.options("quality", rounds=1, seconds=1.0, arguments=given)
    result = measure(options)
    sys.stderr.write("\n")
    return harness.show(result, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
