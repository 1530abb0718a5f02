"""Each way of breaking JSON, and each oddity that is JSON all the same, over ``/process`` and ``/predict``."""

import json
from typing import Any

from bulletproof.ingest import clean_text

# Tokens that are no JSON value, whatever stands around them.
NO_VALUES = [
    "NaN", "-NaN", "Infinity", "-Infinity", "+Infinity", "nan", "inf", "undefined", "None", "True", "False", "TRUE",
    "nul", "nulll", "tru", "truee", "fals", "+1", "++1", "--1", "-", "- 1", "-a", "01", "-01", "00", "1.", "-1.", ".5",
    "-.5", "1.e1", "1e", "1e+", "1e-", "1E", "1e1.5", "1e+-2", "1.2.3", "0x1F", "0b1", "0o7", "1_000", "1,5e", "1a",
    "0e", "0.e1", "9.e+", "1 000", "１", "1\u0660", "1e400", "-1e999999", "'a'", "`a`", "a", "“a”", '"a', 'a"', '"a""',
    '"\\x41"', '"\\a"', '"\\u12"', '"\\u12G4"', '"\\u{41}"', '"\\U0001F600"', '"\\\'"', '"\\ "', '"\\\n"', '"a\nb"',
    '"a\tb"', '"\x00"', '"\x01"', '"\x1f"', '"\\ud800"', '"\\udc00"', '"\\udc00\\ud800"', '"\\ud800\\ud800"',
    '"\\ud800\\u0041"', '"\\ud800a"', '"\\uD8', '"\\', "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1;2]", "[1:2]", "[", "]",
    "[[1]", "(1)", '{"a":1,}', '{,"a":1}', '{"a":1,,"b":2}', '{"a" 1}', '{"a":}', '{:1}', '{"a"}', "{a:1}", "{'a':1}",
    "{1:1}", "{null:1}", '{"a"=1}', '{"a":1 "b":2}', '{"a":1;"b":2}', '{"a":"b":1}', "{", "}", '{"a":1]', '[1}', "#",
    "/", "//", "/* */", "1 // a", "1 /* a */", "<a>", "\\u0031", "\ufeff1", "\xa01", "\u20281", "\x0b1", "\x0c1", "$1",
    "@", "~", "*", "1%", "1f", "1L", "1n", "1d", "0x", "!true", "not null", "1 if", '"a" + "b"', '"a" "b"', "\x00",
    "0123456789", "1e5e5", "1E+5E", "--0", "-0x1", "-.0e1", "e5", "E", ".", ",", ":", ";", "1" * 25, "-" + "9" * 30,
]  # fmt: skip
AROUND = [
    "[%s]",
    '["fine", %s]',
    '[{"text": %s}]',
    '[{"text": "fine", "n": %s}]',
    '[[%s], "fine"]',
    '{"data": ["a", %s]}',
]

STRUCTURES = [
    "", " ", "\n\n", "\t", "[", "{", "]", "}", "[]]", "{}}", '["a"', '["a",', '["a"]]', '["a"]["b"]', '["a"],',
    '["a"] x', '["a"]\x00', '{"text": "a"}{"text": "b"}', '{"text": "a"}\n{"text": "b"}', '{"text"', '{"text":',
    '{"text":"a"',
    '{"text":"a",', '{"text":"a",}', '"a', "[\"a\\", "nul", "tru", "-", "1e", '["a"]//end', '/* start */["a"]',
    '["a"]#', "<json>[]</json>", "callback(['a'])", 'callback(["a"])', ")]}',\n[\"a\"]", "while(1);[\"a\"]",
    "text=a&b=c",
    "---\n- a",
    "[" * 65 + '"a"' + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, "[" * 100_000, '[{"a":' * 50_000, "]" * 1000,
    '["' + "\\u0041" * 300_000, "[" + "1" * 1_000_000, '[{' + ",".join(f'"k{n}":1' for n in range(1001)) + "}]",
    '{"lol":"&lol;","lol2":' + "[" * 70 + '"lol"' + "]" * 70 + "}",
]  # fmt: skip


async def test_each_broken_token_in_each_place_is_refused_with_its_place(sender: Any) -> None:
    for token in NO_VALUES:
        for around in AROUND[:: 1 if len(token) < 3 else 2]:
            body = await sender.refusal("a.json", "\n" + around % token)
            assert body["code"] in ("invalid_json", "unsupported_format"), (around % token, body)
            if body["code"] == "invalid_json":
                assert "line " in body["details"], (token, body)
                assert "column " in body["details"], (token, body)
    assert sender.sent > 500


async def test_each_broken_token_in_json_lines_costs_its_line_alone(sender: Any) -> None:
    tokens = [token for token in NO_VALUES if not {"\n", "\x00"} & set(token)]
    for start in range(0, len(tokens), 50):
        some = tokens[start : start + 50]
        lines = [line for token in some for line in (json.dumps({"text": f"It is {token}"}), f'{{"text": {token}}}')]
        status, body = await sender.file("a.jsonl", "\n".join(lines))
        assert status == 200, body
        assert [result["text"] for result in body["results"]] == [clean_text(f"It is {token}") for token in some]
        assert [(one["row"], one["code"]) for one in body["rejections"]] == [
            (2 * number, "invalid_json") for number in range(1, len(some) + 1)
        ]
        assert all(f"line {one['row']}, column " in one["details"] for one in body["rejections"])


async def test_broken_documents_are_refused_by_their_kind(sender: Any) -> None:
    codes = ("invalid_json", "empty_file", "missing_field", "invalid_input", "file_too_large", "unsupported_format")
    for content in STRUCTURES:
        body = await sender.refusal("a.json", content)
        assert body["code"] in codes, (content[:100], body)
    for cut in range(1, len(whole := '[{"text": "a \\u00e9", "n": [1, {"b": null}]}]')):
        body = await sender.refusal("a.json", whole[:cut])
        assert body["code"] == "invalid_json", (whole[:cut], body)
        assert "line 1, column " in body["details"], (whole[:cut], body)


async def test_oddities_that_are_json_are_read_as_they_are_meant(sender: Any) -> None:
    texts = [
        "plain",
        'q"uote',
        "back\\slash",
        "sol/idus",
        "\b\f",
        "tab\there",
        "\x7f",
        "\x80",
        "\u2028",
        "\ufffe",
        "\uffff",
        "\U0010ffff",
        "\U0001f600",
        "\ue000",
        "null",
        "NaN",
        "[1]",
        '{"a":1}',
        "1e5",
        "=1+1",
        "\ufeffx",
    ]
    texts += [chr(code) for code in range(0x21, 0x3000, 7)] + [chr(code) for code in range(0x1F000, 0x20000, 97)]
    marked = [f"{number} {text} end" for number, text in enumerate(texts)]
    for ascii_only in (True, False):
        for indent, separators in ((None, (",", ":")), (1, None), (None, (" ,\r\n", "\t: "))):
            written = json.dumps(marked, ensure_ascii=ascii_only, indent=indent, separators=separators)
            assert await sender.texts("a.json", written) == list(map(clean_text, marked))
    upper = "[" + ",".join('"' + "".join(f"\\u{ord(c):04X}" for c in f"{n} \xe9\u4e2d") + '"' for n in range(500)) + "]"
    assert await sender.texts("a.json", upper) == [f"{n} é中" for n in range(500)]
    assert await sender.texts("a.json", '["a\\/b", "\\"", "x\\u0000y"]') == ["a/b", '"', "xy"]
    for number in ("-0", "0", "1e5", "1E+2", "0.1e-7", "-1.5E300", "12345678901234567890", "1e-400", "0e99", "5e-324"):
        assert await sender.texts("a.json", f'[{{"text": "good", "n": {number}}}]') == ["good"]
    for depth in (1, 10, 60):
        nested = "[" * depth + "]" * depth
        assert await sender.texts("a.json", f'[{{"n": {nested}, "text": "good"}}]') == ["good"]
    for content in (
        ' \t\r\n[ \n"good"\r]\n ', '{"text":"good"}', '{"reviews":["good"]}', '{"a":1,"items":[{"text":"good"}],"b":2}',
        '[{"text":"bad","text":"good"}]', '[{"":1,"text":"good"}]', '[{"te\\u0078t":"good"}]', '\ufeff["good"]',
        '[{"__proto__":{"x":1},"constructor":2,"text":"good"}]', '{"y":[1],"X":["good"]}',
    ):  # fmt: skip
        assert await sender.texts("a.json", content) == ["good"], content
    for encoding in ("utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
        assert await sender.texts("a.json", (mark + '["gö中😀d"]').encode(encoding)) == ["gö中😀d"]


async def test_bytes_that_are_no_utf8_are_refused_with_their_place(sender: Any) -> None:
    overlong = [b"\xc0\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xc1\xbf"]
    halves = [b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80"]
    stray = [b"\x80", b"\xbf", b"\xfe", b"\xff", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xc3\x28", b"\xe2\x28\xa1"]
    for bad in (*overlong, *halves, *stray):
        body = await sender.refusal("a.json", b'[\n"good", "' + bad + b'"]')
        assert body["code"] == "invalid_encoding", (bad, body)
        assert "line 2, column 10" in body["details"], (bad, body)
        status, body = await sender.file("a.jsonl", b'{"text":"good"}\n{"text":"' + bad + b'"}\n{"text":"bad"}\n')
        assert (status, body["records"]["analyzed"], body["rejections"][0]["row"]) == (200, 2, 2), (bad, body)
        assert body["rejections"][0]["code"] == "invalid_encoding"


async def test_predictions_read_numbers_as_they_are_and_nothing_else(sender: Any) -> None:
    row = '{"input_data": [%s, 3.5, 1.4, 0.2]}'
    for number in ("5.1", "5", "5.10", "5.1e0", "51E-1", "0.51e+1", "\t5.1\r\n"):
        status, body = await sender.send("POST", "/predict", content=row % number)
        assert (status, body["label"]) == (200, "setosa"), (number, body)
    numbers = [token for token in NO_VALUES if token.strip() not in ("NaN", "Infinity", "-Infinity", "1" * 25)]
    for token in (*numbers, '"5.1"', "null", "true", "[5.1]", "[]", "{}", '""', "1e400", "NaN", "Infinity", "9" * 25):
        status, body = await sender.send("POST", "/predict", content=(row % token).encode())
        assert status in (400, 422), (token, body)
        assert body["code"] in ("invalid_request", "not_numeric", "shape_mismatch", "invalid_input"), (token, body)
    for content in (
        *STRUCTURES,
        b"\xff",
        b'{"input_data": "\xc0\x80"}',
        '{"input_data": [1], "input\\u005fdata": [2]}',
    ):
        status, body = await sender.send("POST", "/predict", content=content)
        assert status in (400, 413, 422), (content[:100], body)
    for value in (
        "__import__",
        "../../etc/passwd",
        "a" * 10_000,
        "iris\x00",
        "IRIS",
        "ｉｒｉｓ",
        "iris/../iris",
        "",
        " iris",
    ):
        for field in ("model", "model_version"):
            asked = {"input_data": [5.1, 3.5, 1.4, 0.2], field: value}
            status, body = await sender.send("POST", "/predict", json=asked)
            assert status in (404, 422), (value[:50], body)
