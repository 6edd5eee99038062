"""What each operation and macro of the language gives, and when it has no value."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cel_ask import ask, read

from aesp_proxy.decide.policy.cel.errors import EvaluationError
from aesp_proxy.decide.policy.cel.operations import OPERATIONS
from aesp_proxy.decide.policy.cel.terms import Term
from aesp_proxy.model.context import Level

_FACTS = {
    "request__host": "api.example.com",
    "request__path": "/v1/été",
    "request__port": 443,
    "request__time": 1_700_000_000_123_000_000,  # 2023-11-14T22:13:20.123Z, a Tuesday
    "request__headers": {"accept": "a"},
    "request__source_ip": ip_address("10.1.2.3"),
    "request__user__roles": ("dev", "ops"),
    "request__user__security_clearance": Level.SECRET,
    "request__user__mfa_verified": False,
    "session__risk_score": 0.5,
    "tool__arguments": {"a": 1, "t": "5", "d": 1.5, "l": [1, "x"], "o": {"k": None}, "b": True},
}
_T = "timestamp('2024-02-29T12:30:45.678Z')"
_D = "duration('-1h30m1.5s')"

TRUE = f"""
1 < 2 | 1u < 2u | 1.0 < 2.0 | 'a' < 'b' | b'a' < b'b' | false < true | 2 <= 2 | 3 > 2 | 3 >= 3
1 < 2u | 1u < 2 | 1 < 1.5 | 1.5 > 1 | 2u > 1.5 | -1 < 0u
9223372036854775807 < 9223372036854775808.0
{_T} > {_T} - duration('1ns') | {_D} < duration('0s') | dyn(1) < dyn(1.5) | dyn('a') < dyn('b')
dyn(false) < dyn(true) | dyn(2) <= dyn(2) | dyn(3) > dyn(2) | dyn(3) >= dyn(3)
tool.arguments.a < 2
1 + 2 == 3 | 1u + 2u == 3u | 1.5 + 1.5 == 3.0 | 'a' + 'b' == 'ab' | b'a' + b'b' == b'ab'
[1] + [2] == [1, 2] | [] + [1] == [1] | {_T} + duration('1h') > {_T} | duration('1h') + {_T} > {_T}
duration('1h') + duration('30m') == duration('90m')
duration('1h') - duration('1h') == duration('0')
{_T} - {_T} == duration('0s') | 3 - 5 == -2 | 5u - 3u == 2u | 1.0 - 0.5 == 0.5 | 1-1 == 0
2 * 3 == 6 | 2u * 3u == 6u | 0.5 * 4.0 == 2.0 | -7 / 2 == -3 | 7u / 2u == 3u | 1.0 / 4.0 == 0.25
1.0 / 0.0 > 1e308 | -1.0 / 0.0 < -1e308 | 1.0 / -0.0 < 0.0 | 0.0 / 0.0 != 0.0 / 0.0
-7 % 2 == -1 | 7 % -2 == 1 | 7u % 2u == 1u | -(3) == -3 | -(1.5) == -1.5 | - - 1 == 1
1 == 1 | 1u == 1u | 'a' != 'b' | b'a' == b'a' | null == null | true != false | [1, 2] == [1, 2]
[1, 2] != [2, 1] | {{'a': 1}} == {{'a': 1}} | {{'a': 1}} != {{'a': 2}} | dyn(1) == 1.0
dyn(1) != true
dyn('1') != 1 | tool.arguments.o.k == null | tool.arguments.l == [1, 'x'] | tool.arguments.b == true
tool.arguments.b != 1 | request.user.roles == ['dev', 'ops'] | [] == [] | {{}} == {{}}
1 in [1, 2] | !(3 in [1, 2]) | 'accept' in request.headers | 'dev' in request.user.roles
1.0 in [dyn(1)] | 'x' in tool.arguments.l | 'a' in tool.arguments
!(1 in {{'a': 1}}.map(k, size(k + k)))
request.port in [80, 443] | request.host in ['api.example.com'] | [1] in [[1], [2]]
size('été') == 3 | 'été'.size() == 3 | size(b'é') == 2 | b'é'.size() == 2 | [1].size() == 1
size([1, 2]) == 2 | size({{'a': 1}}) == 1 | {{'a': 1}}.size() == 1 | size(tool.arguments.l) == 2
tool.arguments.size() == 6 | size(tool.arguments.t) == 1
'abc'.startsWith('ab') | 'abc'.endsWith('bc') | 'abc'.contains('b') | 'abc'.matches('^a.c$')
matches('abc', 'b') | 'AÉb'.lowerAscii() == 'aÉb' | 'aéB'.upperAscii() == 'AéB'
'A-Z'.lowerAscii() == 'a-z'
[1, 2][1] == 2 | {{'a': 1}}['a'] == 1 | {{'a': 1}}.a == 1 | {{1: 'x'}}[1] == 'x'
{{true: 1}}[true] == 1
{{2u: 1}}[2u] == 1 | request.headers['accept'] == 'a' | request.headers.accept == 'a'
tool.arguments['l'][1] == 'x' | tool.arguments.l[0] == 1 | tool.arguments.o.k == null
request.time.getFullYear() == 2023 | request.time.getMonth() == 10 | request.time.getDate() == 14
request.time.getDayOfMonth() == 13 | request.time.getDayOfWeek() == 2
request.time.getHours() == 22
request.time.getDayOfYear() == 317 | request.time.getMinutes() == 13
request.time.getSeconds() == 20
request.time.getMilliseconds() == 123 | request.time.getHours('+02:00') == 0
request.time.getDate('Europe/Berlin') == 14 | request.time.getDayOfWeek('+02:00') == 3
request.time.getFullYear('UTC') == 2023 | request.time.getMonth('+02:00') == 10
request.time.getDayOfMonth('+02:00') == 14 | request.time.getDayOfYear('+02:00') == 318
request.time.getMinutes('+05:30') == 43 | request.time.getSeconds('-01:00') == 20
request.time.getMilliseconds('UTC') == 123 | request.time.getHours('America/New_York') == 17
{_T}.getDayOfYear() == 59 | {_D}.getHours() == -1 | {_D}.getMinutes() == -90
{_D}.getSeconds() == -5401
duration('1234ms').getMilliseconds() == 234 | duration('1.5h') == duration('5400s')
int(1) == 1 | int(1u) == 1 | int(1.9) == 1 | int(-1.9) == -1 | int('-5') == -5
int({_T}) == 1709209845
int(tool.arguments.t) == 5 | int(tool.arguments.d) == 1 | int(dyn(3)) == 3
uint(1) == 1u | uint(1u) == 1u | uint(1.9) == 1u | uint('5') == 5u
double(1) == 1.0 | double(1u) == 1.0 | double(1.0) == 1.0 | double('1e3') == 1000.0
double(tool.arguments.a) == 1.0 | double(tool.arguments.t) == 5.0 | double('nan') != double('nan')
string('a') == 'a' | string(-1) == '-1' | string(1u) == '1' | string(1.5) == '1.5'
string(1.0) == '1'
string(true) == 'true' | string(b'a') == 'a' | string({_T}) == '2024-02-29T12:30:45.678Z'
string({_D}) == '-5401.5s' | string(tool.arguments.a) == '1' | string(tool.arguments.b) == 'true'
string(tool.arguments.d) == '1.5' | string(tool.arguments.t) == '5'
string(request.source_ip) == '10.1.2.3'
bytes('é') == b'\\xc3\\xa9' | bytes(b'a') == b'a' | bool('true') | bool(true) | !bool('0')
timestamp(0) == timestamp('1970-01-01T00:00:00Z') | timestamp({_T}) == {_T}
timestamp('1970-01-01T02:00:00+02:00') == timestamp(0)
duration(duration('1s')) == duration('1000ms')
dyn(1) == 1 | cidr_contains('10.0.0.0/8', request.source_ip) | cidr_contains('::/0', '::1')
cidr_contains('10.0.0.0/8', '::ffff:10.1.1.1')
request.source_ip in ['10.0.0.0/8', '192.168.0.0/16']
request.source_ip == '10.1.2.3' | request.source_ip != '10.1.2.4'
request.source_ip == '10.0.0.0/8'
glob('/v1/**', request.path) | !glob('/v2/**', request.path)
host_matches('*.example.com', request.host)
!host_matches('example.com', request.host) | !host_matches('*.example.com', 'not a host')
has_label(request.user.roles, 'dev') | luhn('4111 1111-1111 1111') | !luhn('4111111111111112')
!luhn('x')
request.user.security_clearance >= 'confidential' | request.user.security_clearance < 'top_secret'
request.user.security_clearance == 'secret'
request.user.security_clearance in ['secret', 'public']
request.user.security_clearance > 'INTERNAL' | request.user.security_clearance <= 'secret'
[1, 2].all(x, x > 0) | [].all(x, x > 0) | [1, 2].exists(x, x == 2) | ![1].exists(x, x == 2)
[1, 2].exists_one(x, x == 2) | ![2, 2].exists_one(x, x == 2) | [1, 2].filter(x, x > 1) == [2]
[1, 2].map(x, x * 2) == [2, 4] | [1, 2].map(x, x > 1, x * 2) == [4] | {{'a': 1}}.all(k, k == 'a')
{{'a': 1}}.filter(k, true) == ['a'] | tool.arguments.l.exists(x, x == 'x')
tool.arguments.exists(k, k == 'a')
[1].map(x, [2].map(y, x + y))[0][0] == 3 | [[1]].all(x, x.all(x, x == 1))
has(request.host) | !has(request.query) | has(request.headers.accept) | !has(request.headers.x)
has(tool.arguments.a) | !has(tool.arguments.zz) | has({{'a': 1}}.a)
true ? true : 1 / 0 == 1 | (1 > 2 ? 'a' : 'b') == 'b' | !(true && false) | false || true
true || 1 / 0 == 1 | 1 / 0 == 1 || true | !(false && 1 / 0 == 1) | !(1 / 0 == 1 && false)
[1, 0].exists(x, 1 / x == 1) | ![0, 1].all(x, 1 / x == 2) | !request.user.mfa_verified
'\\u00e9' == 'é' | '\\x41\\101' == 'AA' | r'\\n'.size() == 2 | "it's" == 'it\\'s' | 0x10 == 16
1e3 == 1000.0
true // a remark
"""

ERROR = """
1 / 0 == 1 | 1 % 0 == 1 | 1u / 0u == 1u | 1u % 0u == 1u | 9223372036854775807 + 1 == 0
-9223372036854775808 - 1 == 0 | 4611686018427387904 * 2 == 0 | 0u - 1u == 0u
18446744073709551615u + 1u == 0u | 18446744073709551615u * 2u == 0u | -(-9223372036854775808) == 0
-9223372036854775808 / -1 == 0 | -9223372036854775808 % -1 == 0 | [1][1] == 1 | [1][-1] == 1
{'a': 1}['b'] == 1 | request.headers.x == 'a' | request.query == '' | tool.arguments.zz == 1
tool.arguments.l[2] == 1 | tool.arguments.l.x == 1 | tool.arguments.a.all(x, true)
tool.arguments.a.size() == 1
tool.arguments.t + 1 == 6 | dyn('a') < dyn(1) | dyn(true) < dyn(1) | 'x' in tool.arguments.a
has(tool.arguments.a.b) | int('x') == 1 | int('') == 1 | int('99999999999999999999') == 1
int(1e19) == 1
int(-9223372036854775808.0) == 1 | int(double('nan')) == 1 | uint(-1) == 1u | uint(-0.5) == 1u
uint('-1') == 1u
uint(double('inf')) == 1u | int(tool.arguments.o) == 1 | double('x') == 1.0 | double('1_0') == 1.0
double(tool.arguments.o) == 1.0 | string(b'\\xff') == 'a' | string(tool.arguments.l) == ''
bool('yes')
timestamp('2024-01-01') == timestamp(0) | timestamp('2024-01-01T00:00:00') == timestamp(0)
timestamp('2024-02-30T00:00:00Z') == timestamp(0) | timestamp(9223372036854775807) == timestamp(0)
timestamp('9999-12-31T23:59:59Z') + duration('1s') == timestamp(0) | duration('1') == duration('1s')
timestamp('9999-12-31T23:59:59Z').getHours('+01:00') == 0 | duration('') == duration('1s')
timestamp('0001-01-01T00:00:00Z').getHours('America/New_York') == 0
duration('1.2.3s') == duration('1s')
timestamp('9999-12-31T23:59:59Z') - timestamp('0001-01-01T00:00:00Z') == duration('1s')
cidr_contains('10.0.0.0/8', 'x') | {'a': 1, 'a': 2}.size() == 1 | [0, 2].exists_one(x, 1 / x == 0)
[0].map(x, 1 / x) == [1] | [0].filter(x, 1 / x == 1) == [0] | [0, 1].all(x, 1 / x == 1)
[0, 1].exists(x, 1 / x == 2) | 1 / 0 == 1 && true | false || 1 / 0 == 1 | 1 / 0 == 1 ? true : true
tool.arguments.a | !tool.arguments.t
"""


def _each(table: str) -> list[str]:
    return [text.strip() for line in table.strip().splitlines() for text in line.split(" | ")]


@pytest.mark.parametrize("text", _each(TRUE))
def test_this_is_true(text: str):
    assert ask(text, **_FACTS) is True


@pytest.mark.parametrize("text", _each(ERROR))
def test_this_has_no_value(text: str):
    with pytest.raises(EvaluationError):
        ask(text, **_FACTS)


def _ops(term: Term) -> set[str]:
    return {term.op}.union(*map(_ops, term.args))


def test_the_tables_above_use_every_operation():
    used: set[str] = set()
    for text in _each(TRUE):
        used |= _ops(read(text).term)
    every = {way.op for ways in OPERATIONS.values() for way in ways}
    assert every - used == set()
    assert {"all", "exists", "exists_one", "filter", "transform", "has", "if", "dyn_has"} <= used
