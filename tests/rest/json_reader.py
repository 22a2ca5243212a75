#!/usr/bin/env python3
"""The gateway's reader of JSON, in LuaJIT as in Envoy, and bodies to compare it with Python's by.

With --inputs NUMBER it compares them by so many bodies that are made up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
from pathlib import Path

import lupa.luajit21

SOURCE = Path(__file__).resolve().parents[2] / "deploy" / "envoy" / "rest.lua"

# Answers what the text means, and its strings as the gateway would write them, or nothing where it is refused. What it
# means is spelled as `meaning` does.
ENTRY = """
local strings
local function meaning(value)
  if type(value) == "string" then
    strings[#strings + 1] = write(value)
    return #value .. ":" .. value
  elseif value == NULL then
    return "null"
  elseif value == OTHER then
    return "number"
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  for index, part in ipairs(value.elements or value) do
    parts[index] = value.elements and meaning(part) or meaning(part.name) .. meaning(part.value)
  end
  return value.elements and "[" .. table.concat(parts) .. "]" or "{" .. table.concat(parts) .. "}"
end

return function(text)
  local fine, members = pcall(read, text)
  if fine then
    strings = {}
    return meaning(members), "[" .. table.concat(strings, ",") .. "]"
  elseif type(members) ~= "table" then
    error(members) -- not a refusal but a fault
  end
end
"""

# What is taken, whatever stands for VALUE.
VALUES = [
    b'""', b'"a"', b'" a "', b"true", b"false", b"null", b"{}", b"[]", b"[{}]", b"[[]]", b"{ }", b"[ ]",
    b"0", b"-0", b"1", b"-1", b"10", b"0.0", b"0.5", b"-1.50", b"1e0", b"1E9", b"1e+9", b"1e-09", b"0e00", b"1.5E-7",
    b"1e999999", b"123456789012345678901234567890", b"1" * 5000, b"0." + b"1" * 5000,
    rb'"\""', rb'"\\"', rb'"\/"', rb'"/"', rb'"\b\f\n\r\t"', rb'"\u0000"', rb'"\u001F"', rb'"\u00e9"', rb'"\u00E9"',
    rb'"\u0022"', rb'"\u005c"', rb'"\\u0041"', rb'"\\\u0041"', rb'"\uD83D\uDE00"', rb'"\ud83d\ude00"', rb'"\uDBFF\uDFFF"',
    rb'"\uD800\uDC00"', rb'"\uFFFF"', rb'"\uFDD0"', rb'"\u2028\u2029"', rb'"\uFEFF"', rb'"\uE000"', rb'"\uD7FF"',
    "\"\u00e9\"".encode(), "\"\u65e5\u672c\"".encode(), "\"\U0001f600\"".encode(), "\"\U0010ffff\"".encode(),
    "\"\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\"".encode(), "\"\ufeff\u2028\u200b\u202e\u0085\"".encode(),
    b'"\x7f"', b'"\'"', b'"//"', b'"/*"', b'"{}[]:,"', b'"' + b"x" * 5000 + b'"', b'"' + rb"\n" * 2000 + b'"',
    b'["a","b"]', b"[1,true,null,{}]", b'{"a":{"b":[{"c":"d"}]}}', b'{"a":1,"a":2}', b'{"":""}', rb'{"\u0061":"a","a":"b"}',
    b'[[[[[["deep"]]]]]]', b'{"a":{"a":{"a":{"a":{"a":"b"}}}}}', b'{"elements":["a"]}', b'{"name":"a","value":"b"}',
]  # fmt: skip

# What is refused, whatever stands for VALUE.
NO_VALUES = [
    b"", b" ", b",", b":", b"}", b"]", b"{", b"[", b'"', b"a", b"'a'", b"\\", b"\\n", b"undefined", b"None", b"True", b"TRUE",
    b"nul", b"nulll", b"truefalse", b"true false", b"true1", b"NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"-",
    b"+1", b"--1", b"-a", b"01", b"-01", b"00", b"0123", b"08", b"1.", b".5", b"-.5", b"1.e1", b"1..2", b"1.2.3", b"1e", b"1e+",
    b"1e-", b"1e1.5", b"1e1e1", b"1ee1", b"0x1", b"0X1F", b"1x", b"1_000", b"1 2", b"1-", b"1+1", b"0b1", b"0o7", b"1f",
    b"1n", b"1L", b"- 1", b"1 e1", b"1e 1", "\u0661".encode(), "\uff11".encode(), "1\u00b2".encode(), "\u22121".encode(),
    b'"a', b'a"', b'"a""b"', b'"a" "b"', b'"a\nb"', b'"a\tb"', b'"\0"', b'"\x01"', b'"\x1f"', b'"a\rb"', b'"\x1b"',
    rb'"\x41"', rb'"\a"', rb'"\v"', rb'"\0"', rb'"\e"', rb'"\'"', rb'"\ "', b'"\\\n"', rb'"\"', rb'"\N"', rb'"\T"', b'"\\\xc3\xa9"',
    rb'"\u"', rb'"\u1"', rb'"\u12"', rb'"\u123"', rb'"\u12g4"', rb'"\u-123"', rb'"\u+123"', rb'"\u 123"', rb'"\u0x12"',
    rb'"\u{41}"', rb'"\U0041"', rb'"\U00000041"', rb'"\u00e"',
    rb'"\ud800"', rb'"\uD800"', rb'"\udbff"', rb'"\udc00"', rb'"\uDFFF"', rb'"\ud800\ud800"', rb'"\ud800\u0041"', rb'"\ud800a"',
    rb'"\udc00\ud800"', rb'"\ud800\udbff"', rb'"\ud800\ue000"', rb'"\ud800 \udc00"', rb'"\ud800\\udc00"', rb'"\ud800\udc0"',
    rb'"\ud83d\ude00\ude00"', rb'"\ud83d\ud83d\ude00"', rb'"\ud800\n"', b'"\\ud800\xed\xb0\x80"',
    b'"\x80"', b'"\xbf"', b'"\xc0\x80"', b'"\xc1\xbf"', b'"\xc2"', b'"\xc2\x7f"', b'"\xc2\xc0"', b'"\xe0\x80\x80"', b'"\xe0\x9f\xbf"',
    b'"\xe2\x82"', b'"\xed\xa0\x80"', b'"\xed\xbf\xbf"', b'"\xed\xa0\xbd\xed\xb8\x80"', b'"\xf0\x80\x80\x80"', b'"\xf0\x8f\xbf\xbf"',
    b'"\xf0\x9f\x98"', b'"\xf4\x90\x80\x80"', b'"\xf5\x80\x80\x80"', b'"\xf8\x88\x80\x80\x80"', b'"\xfe"', b'"\xff"', b'"\xc3\xa9\xa9"',
    b'"\xe2\xc2\x80\x82"', b'"a\xff"', b'"\xe9"', b"[,]", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b"[1", b"1]", b"[1}", b"[:]", b'["a":1]',
    b"{,}", b'{"a"}', b'{"a":}', b'{:1}', b'{"a":1,}', b'{,"a":1}', b'{"a":1,,"b":2}', b'{"a" 1}', b'{"a":1 "b":2}', b'{"a"::1}',
    b'{"a":1:2}', b"{a:1}", b"{'a':1}", b"{1:1}", b"{null:1}", b'{"a":1]', b'{["a"]:1}', b'{"a"="b"}', b'{"a",1}', b'{"a\n":1}',
    b"1//a", b"1/*a*/", b"/*a*/1", b"1#a", b"<!--1-->", b"1;", b"(1)", b"`a`", b"\x0b1", b"\x0c1", b"\xc2\xa01", b"\xe2\x80\xa81",
    b"\xef\xbb\xbf1", b"1\0", b"\x001", b"\x1e1", b"1\x08", b"[" * 9 + b"]" * 9, b"[" * 30, b'{"a":' * 30,
]  # fmt: skip

# What is refused as it stands.
NO_BODIES = [
    b"", b" ", b"\n", b"null", b"true", b"1", b'"a"', b"[]", b"[{}]", b"{", b"}", b"{}{}", b"{} {}", b"{},", b"{}]", b"{}}", b"{};", b"{}\0",
    b"\0{}", b"{}//", b"{} x", b"{}1", b'{}""', b"\xef\xbb\xbf{}", b"{}\xef\xbb\xbf", b"\xff\xfe{\0}\0", b"\xfe\xff\0{\0}", b"{\0}\0", b"\0{\0}",
    b"\x0b{}", b"{}\x0c", b"\xc2\xa0{}", b"{}\xc2\xa0", b"{}\xff", b"\x1e{}", b")]}'{}", b"{}\x80", b"%7B%7D", b"a={}",
]  # fmt: skip

BODIES = [
    *(b'{"city":%s}' % value for value in VALUES),
    *(b' \t\r\n{ "city" : %s\n,\r"state"\t: %s } ' % (value, value) for value in VALUES[:20]),
    b"{}", b" { } ", b"\r\n{}\t", rb'{"c\u0069ty":"a"}', b'{"city":"a","city":"b"}', b'{"CITY":"a","":"b"}',
]  # fmt: skip
REFUSED = [
    *NO_BODIES,
    *(b'{"city":%s}' % value for value in NO_VALUES),
    *(b'{"city":["a",%s]}' % value for value in NO_VALUES if value.strip()),
    *(b"{%s:1}" % value for value in NO_VALUES if value.startswith(b'"')),
]

PIECES = [
    *VALUES[:28], *(value for value in NO_VALUES if len(value) < 8), b'"', b"\\", rb"\u", rb"\ud83d", rb"\ude00", b"\t", b"\r", b"\n",
    b'"city":', b'{"a":', b"[[", b"]]",
]  # fmt: skip


NUMBER = b"number"  # what stands for any


class Reader:
    """The gateway's reader, or a broken one: what each key of `holes` is there stands for is put in its place."""

    def __init__(self, holes: dict[str, str] | None = None) -> None:
        source = SOURCE.read_text()
        for there, instead in (holes or {}).items():
            assert source.count(there) == 1, there
            source = source.replace(there, instead)
        lua = lupa.luajit21.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        names = SOURCE.with_name("names.lua").read_bytes()
        lua.globals()[b"dofile"] = lambda _: lua.execute(names)
        self.read = lua.execute(f"{source}\n{ENTRY}".encode())


def meaning(value: object) -> bytes:
    """What Python's reader has read, as the gateway's spells it."""
    if isinstance(value, str):
        text = value.encode()  # which no surrogate alone survives
        return b"%d:%s" % (len(text), text)
    if isinstance(value, list):
        return b"[%s]" % b"".join(meaning(element) for element in value)
    if isinstance(value, tuple):
        return b"{%s}" % b"".join(meaning(name) + meaning(member) for name, member in value)
    return NUMBER if value is NUMBER else json.dumps(value).encode()


def strings(value: object) -> list[str]:
    """All strings in it, in their order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for element in value for text in strings(element)]
    if isinstance(value, tuple):
        return [text for name, member in value for text in [name, *strings(member)]]
    return []


def no_number(text: str) -> None:
    raise ValueError(text)


def python(body: bytes) -> object:
    """What Python's reader makes of it: an object is a tuple of its members. NaN and Infinity are no JSON."""
    return json.loads(
        body.decode(),
        object_pairs_hook=tuple,
        parse_int=lambda _: NUMBER,
        parse_float=lambda _: NUMBER,
        parse_constant=no_number,
    )


def difference(reader: Reader, body: bytes) -> str | None:
    """Why the gateway's reader must not take this as it does. What it refuses it may."""
    answer = reader.read(body)
    if answer is None:
        return None
    meant, written = answer
    try:
        value = python(body)
        if meaning(value) != meant:
            return "it means something else"
    except ValueError as error:
        return f"it is no JSON: {error}"
    with contextlib.suppress(ValueError):
        if json.loads(written.decode()) == strings(value):
            return None
    return "it is written as something else"


def made_up(chance: random.Random, bodies: list[bytes]) -> bytes:
    """A body with up to four changes."""
    body = bytearray(chance.choice(bodies))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        begin = chance.randint(0, len(body))
        end = min(len(body), begin + chance.choice((0, 0, 1, 1, 2, 4, 16)))
        match chance.randrange(4):
            case 0:
                body[begin:end] = chance.choice(PIECES)
            case 1:
                body[begin:end] = bytes([chance.randrange(256)])
            case 2:
                body[begin:end] = b""
            case 3:
                other = chance.choice(bodies)
                body[begin:end] = other[chance.randint(0, len(other)) :][: chance.choice((1, 4, 16, 64))]
    return bytes(body[:500])


def compare(reader: Reader, inputs: int, seed: int) -> tuple[int, dict[bytes, str]]:
    """Compares by so many bodies that are made up: how many were taken, and those that must not be."""
    chance, taken, faults = random.Random(seed), 0, {}
    good, bad = [[body for body in bodies if len(body) < 200] for bodies in (BODIES, REFUSED)]
    for _ in range(inputs):
        body = made_up(chance, chance.choice((good, good, good, bad)))
        if reader.read(body) is not None:
            taken += 1
            if fault := difference(reader, body):
                faults[body] = fault
            elif len(good) < 20_000:
                good.append(body)
    return taken, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    taken, faults = compare(Reader(), arguments.inputs, arguments.seed)
    print(f"{arguments.inputs} bodies, of which the gateway takes {taken}; {len(faults)} that it must not")
    for body, fault in faults.items():
        print(f"{body!r}: {fault}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
