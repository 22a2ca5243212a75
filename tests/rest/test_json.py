"""What the gateway takes for JSON is JSON, and means what it means to others."""

from __future__ import annotations

import http.client

import pytest

from json_reader import BODIES, REFUSED, Reader, compare, difference

# Ways in which a reader of JSON is wrong.
HOLES = {
    "a number is whatever begins as one": {
        '    if take("[eE][+-]?") then\n      need("%d+")\n    end\n    take(SPACE)': '    take("[%w.+-]*" .. SPACE)'
    },
    "a number may begin with zeros": {'need("[1-9]%d*")': 'need("%d+")', 'if not take("0") then': "do"},
    "a string may have control characters": {"""'([^%z\\1-\\31"\\\\]+)'""": """'([^"\\\\]+)'"""},
    "a string may have a NUL": {"[^%z\\1-\\31": "[^\\1-\\31"},
    "any character may be escaped": {"or read_unicode_escape()": "or take('\\\\([^u])') or read_unicode_escape()"},
    "the second half of a pair may be alone": {"point >= 0xDC00 and point < 0xE000": "false"},
    "the first half of a pair may be alone": {"point >= 0xD800 and point < 0xDC00": "false"},
    "the second half of a pair may be anything": {"[dD][c-fC-F]%x%x": "%x%x%x%x"},
    "bytes need not be UTF-8": {"not is_utf8(text) or ": ""},
    "overlong UTF-8 is UTF-8": {"[\\194-\\223]": "[\\192-\\223]"},
    "surrogates are UTF-8": {"\\237[\\128-\\159]": "\\237[\\128-\\191]"},
    "more may come behind the object": {"return at > #text and members or fail()": "return members"},
    "a comma may come last": {'until not take("," .. SPACE)': 'until not take("," .. SPACE) or text:find("^" .. close, at)'},
    "a comma may lack": {'until not take("," .. SPACE)': 'until not (take("," .. SPACE) or text:find(\'^"\', at))'},
    "a colon may lack": {'need(":" .. SPACE)': 'take(":" .. SPACE)'},
    "a list may end as an object does": {"      need(close .. SPACE)": '      need("[%]}]" .. SPACE)'},
    "other white space is white space": {'local SPACE = "[ \\t\\r\\n]*"': 'local SPACE = "%s*"'},
    "a byte order mark is white space": {"  take(SPACE)\n  if not": '  take("\\239\\187\\191")\n  take(SPACE)\n  if not'},
    "a literal is whatever begins as one": {'take("(%l+)" .. SPACE)': 'take("([tfn][aru][lu][se]e?)%l*" .. SPACE)'},
    "an escape means the character behind it": {'n = "\\n"': 'n = "n"'},
    "an escaped point is written as its last byte": {"return utf8(point)": "return string.char(point % 256)"},
    "control characters are written as they are": {':gsub("[%z\\1-\\31]"': ':gsub("[%z]"'},
    "quotation marks are written as they are": {"""gsub('["\\\\]', "\\\\%0")""": """gsub('["]', "\\\\%0")"""},
}


@pytest.fixture(scope="module")
def reader():
    return Reader()


def test_what_is_json_is_taken_and_means_the_same(reader):
    for body in BODIES:
        assert reader.read(body) is not None and difference(reader, body) is None, body


def test_what_is_no_json_is_refused(reader):
    for body in REFUSED:
        assert reader.read(body) is None, body


def test_of_bodies_that_are_made_up_nothing_is_taken_that_is_no_json(reader):
    taken, faults = compare(reader, 20_000, 1)
    assert taken > 2_000 and not faults


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_is_found(hole):
    reader = Reader(HOLES[hole])
    assert any(difference(reader, body) for body in [*BODIES, *REFUSED])


def test_the_gateway_reads_as_its_reader_does_here(world, north, reader):
    connection = http.client.HTTPConnection("127.0.0.1", world.gateway.port, timeout=20)
    headers = {"content-type": "application/json", "cv-api-key": north.headers["cv-api-key"]}
    for body in [body for body in [*BODIES, *REFUSED] if body]:
        connection.request("POST", "/profile?validateOnly=true", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        refused = "is not a JSON object" in text or "nested too deeply" in text
        assert (answer.status, refused) == (400, reader.read(body) is None), body
    connection.close()
