"""What is said about a wrong section `webhooks`."""

from __future__ import annotations

import pytest

from config.config_files import ENVIRON, endpoint, lines, load_text

MALFORMED = [
    (
        "webhooks: {listen: 8081}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            ", got 8081",
        ],
    ),
    (
        "webhooks: {listen: localhost}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            ", got 'localhost'",
        ],
    ),
    (
        "webhooks: {listen: '::1:8081'}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            ", got '::1:8081'",
        ],
    ),
    (
        "webhooks: {listen: '[127.0.0.1]:8081'}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            ", got '[127.0.0.1]:8081'",
        ],
    ),
    (
        "webhooks: {listen: '127.0.0.1:0'}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            ", got '127.0.0.1:0'",
        ],
    ),
    (
        "webhooks: {listen: '127.0.0.1:99999'}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            ", got '127.0.0.1:99999'",
        ],
    ),
    *[(
        f"webhooks: {{listen: '{text}'}}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            f", got '{text}'",
        ],
    ) for text in ("10.0.0:80", "a..b:80", "-a:80", "[a]:80", "a b:80", ":80", "http://a:80")],
    ("webhooks: {listen: []}\n", ["1:20: webhooks.listen: expected at least one address, got an empty list"]),
    ("webhooks: {listen: ['a:1', 'a:1']}\n", [
        "1:20: webhooks.listen: expected each address once, got one that is repeated"]),
    ("webhooks: {listen: 'a:1', health_listen: ['b:1', 'a:1']}\n", [
        "1:42: webhooks.health_listen: expected an address that 'listen' does not have"]),
    ("webhooks: {listen: 'unix:/run/'}\n", [
        "1:20: webhooks.listen: expected the path of a file, got '/run/', which is a directory"]),
    (f"webhooks: {{listen: 'unix:/{'a' * 107}'}}\n", [
        f"1:20: webhooks.listen: expected the path of a socket in at most 107 bytes, got '/{'a' * 107}'"]),
    ("webhooks: {trusted_proxies: [10.0.0.1/8]}\n", [
        "1:29: webhooks.trusted_proxies: expected addresses such as 192.0.2.7 or 10.0.0.0/8, got '10.0.0.1/8'"]),
    ("webhooks: {connections: 0}\n", ["1:25: webhooks.connections: expected a number from 1 to 10000, got 0"]),
    ("webhooks: {endpoint: []}\n", ["1:12: webhooks.endpoint: unknown key (did you mean 'endpoints'?)"]),
    ("webhooks: {endpoints: {path: /a}}\n", ["1:23: webhooks.endpoints: expected a list, got a mapping"]),
    ("webhooks: {endpoints: [/a]}\n", ["1:24: webhooks.endpoints[0]: expected a mapping, got '/a'"]),
    (
        endpoint(path="a"),
        [
            "5:13: webhooks.endpoints[0].path: expected a path that starts with '/', in ASCII without spaces"
            ", got 'a'",
        ],
    ),
    (
        endpoint(path="/a?b=1"),
        [
            "5:13: webhooks.endpoints[0].path: expected a path without query and fragment, got '/a?b=1'",
        ],
    ),
    (
        endpoint(path="/healthz"),
        [
            "5:13: webhooks.endpoints[0].path: expected another path than that of the daemon's own health"
            ", got '/healthz'",
        ],
    ),
    (
        endpoint(path='"/a b"'),
        [
            "5:13: webhooks.endpoints[0].path: expected a path that starts with '/', in ASCII without spaces"
            ", got '/a b'",
        ],
    ),
    (endpoint(path=None), ["5:7: webhooks.endpoints[0]: the key 'path' is missing"]),
    (endpoint(plugin=None), ["5:7: webhooks.endpoints[0]: expected either 'plugin' or 'event', got neither"]),
    (endpoint(event="x.y"), ["5:7: webhooks.endpoints[0]: expected either 'plugin' or 'event', got both"]),
    (
        endpoint(plugin=None, event="ductile.breaker.opened"),
        [
            "8:14: webhooks.endpoints[0].event: expected a type that does not start with 'ductile.breaker.', as "
            "the core's own"
            " events do, got 'ductile.breaker.opened'",
        ],
    ),
    (
        endpoint(plugin="ecko"),
        [
            "6:15: webhooks.endpoints[0].plugin: expected a configured plugin, got 'ecko' (did you mean 'echo'?)",
        ],
    ),
    (
        endpoint(plugin="off"),
        [
            "6:15: webhooks.endpoints[0].plugin: expected an enabled plugin, got 'off', which is disabled",
        ],
    ),
    (
        endpoint() + "    - {path: /a, event: e, secret: '${SECRET}', signature_format: slack}\n",
        [
            "9:14: webhooks.endpoints[1].path: expected a path that no other endpoint has, got '/a'",
        ],
    ),
    (endpoint(secret=None), ["5:7: webhooks.endpoints[0]: the key 'secret' is missing"]),
    (
        endpoint(secret="hunter2"),
        [
            "7:15: webhooks.endpoints[0].secret: expected one ${NAME} and nothing else, got a literal; put the "
            "secret into service.env_file or the environment",
        ],
    ),
    (
        endpoint(secret='"x${SECRET}"'),
        [
            "7:15: webhooks.endpoints[0].secret: expected one ${NAME} and nothing else"
            ", got the value of 'x${SECRET}'",
        ],
    ),
    (
        endpoint(secret="12345678"),
        [
            "7:15: webhooks.endpoints[0].secret: expected one ${NAME} and nothing else, got a literal; put the "
            "secret into service.env_file or the environment",
        ],
    ),
    (endpoint(secret="[]"), ["7:15: webhooks.endpoints[0].secret: expected at least one ${NAME}, got an empty list"]),
    (
        endpoint(secret='["${SECRET}", hunter2, null]'),
        [
            "7:29: webhooks.endpoints[0].secret[1]: expected one ${NAME} and nothing else, got a literal; put "
            "the secret into service.env_file or the environment",
            "7:38: webhooks.endpoints[0].secret[2]: expected one ${NAME} and nothing else, got null",
        ],
    ),
    (
        endpoint(secret="{a: b}"),
        [
            "7:15: webhooks.endpoints[0].secret: expected one ${NAME} and nothing else, got a mapping",
        ],
    ),
    (
        endpoint(secret="${EMPTY}"),
        [
            "7:15: webhooks.endpoints[0].secret: expected a variable that is not empty, got the value of '${EMPTY}'",
        ],
    ),
    (endpoint(secret="${MISSING}"), ["7:15: webhooks.endpoints[0].secret: the variable MISSING is not set"]),
    (
        endpoint(secret="${SECRT}"),
        [
            "7:15: webhooks.endpoints[0].secret: the variable SECRT is not set (did you mean 'SECRET'?)",
        ],
    ),
    (endpoint(signature_header=None), ["5:7: webhooks.endpoints[0]: the key 'signature_header' is missing"]),
    (
        endpoint(signature_header=None, signature_format="base64"),
        [
            "5:7: webhooks.endpoints[0]: the key 'signature_header' is missing",
        ],
    ),
    (
        endpoint(signature_header='"X Sig"'),
        [
            "8:25: webhooks.endpoints[0].signature_header: expected the name of an HTTP header, got 'X Sig'",
        ],
    ),
    (
        endpoint(signature_format="sha256"),
        [
            "9:25: webhooks.endpoints[0].signature_format: expected one of hex, base64, base64url, stripe, slack"
            ", standard, got 'sha256': write hex or base64, as the sender writes the digest",
        ],
    ),
    (
        endpoint(signature_format="gitlab"),
        [
            "9:25: webhooks.endpoints[0].signature_format: expected a scheme of HMAC-SHA256"
            ", got 'gitlab': its secret token is no signature; set a signing token at the hook and write preset:"
            " standard",
        ],
    ),
    (
        endpoint(signature_format="discord"),
        [
            "9:25: webhooks.endpoints[0].signature_format: expected a scheme of HMAC-SHA256"
            ", got 'discord': it signs with Ed25519: poll its API with a plugin on a schedule, or let a relay or a"
            " proxy verify it and sign again",
        ],
    ),
    (
        endpoint(signature_format="ed25519"),
        [
            "9:25: webhooks.endpoints[0].signature_format: expected a scheme of HMAC-SHA256"
            ", got 'ed25519': it signs with a public key: poll its API with a plugin on a schedule, or let a relay or"
            " a proxy verify it and sign again",
        ],
    ),
    (
        endpoint(signature_format="[hex]"),
        [
            "9:25: webhooks.endpoints[0].signature_format: expected one of hex, base64, base64url, stripe, slack"
            ", standard, got a list",
        ],
    ),
    (
        endpoint(dedupe_header='"a:b"'),
        [
            "9:22: webhooks.endpoints[0].dedupe_header: expected the name of an HTTP header, got 'a:b'",
        ],
    ),
    (
        endpoint(max_body_size="65MB"),
        [
            "9:22: webhooks.endpoints[0].max_body_size: expected a size from 1B to 64MB, got '65MB'",
        ],
    ),
    (
        endpoint(max_body_size="0B"),
        [
            "9:22: webhooks.endpoints[0].max_body_size: expected a size from 1B to 64MB, got '0B'",
        ],
    ),
    (
        endpoint(max_body_size="1M"),
        [
            "9:22: webhooks.endpoints[0].max_body_size: expected a size such as 512KB or 1MB, got '1M'",
        ],
    ),
    (
        endpoint(max_body_size="1024"),
        [
            "9:22: webhooks.endpoints[0].max_body_size: expected a size such as 512KB or 1MB, got 1024",
        ],
    ),
    (
        endpoint(signature_header=None, preset="githib"),
        [
            "8:15: webhooks.endpoints[0].preset: expected a preset, as `ductilectl webhook presets` lists them"
            ", got 'githib' (did you mean 'github'?)",
        ],
    ),
    (
        endpoint(signature_header=None, preset="gitlab"),
        [
            "8:15: webhooks.endpoints[0].preset: expected a sender that signs with HMAC-SHA256, got 'gitlab': its"
            " secret token is no signature; set a signing token at the hook and write preset: standard",
        ],
    ),
    (
        endpoint(signature_header=None, preset="OpenAI"),
        ["8:15: webhooks.endpoints[0].preset: expected a preset, got 'OpenAI': write preset: standard"],
    ),
    (
        endpoint(signature_header=None, preset="square"),
        [
            "5:7: webhooks.endpoints[0]: the key 'url' is missing: {url} is the address as the sender"
            " knows it",
        ],
    ),
    (
        endpoint(signature_header=None, preset="github", url="'https://x.example/a'"),
        [
            "9:12: webhooks.endpoints[0].url: expected {url} in 'signed', which does not use this address, so leave"
            " 'url' out",
        ],
    ),
    (
        endpoint(signature_header=None, preset="square", url="example.org"),
        [
            "9:12: webhooks.endpoints[0].url: expected an address such as https://example.org/hooks/a"
            ", got 'example.org'",
        ],
    ),
    (
        endpoint(preset="standard", secret="${KEY}"),
        [
            "8:25: webhooks.endpoints[0].signature_header: no sender signs like that: preset standard has its signature"
            " in webhook-signature; leave signature_header out, or use the preset of the sender",
        ],
    ),
    (
        endpoint(signature_header=None, preset="standard"),
        [
            "7:15: webhooks.endpoints[0].secret: expected base64, as the sender shows it, got the value of '${SECRET}'",
        ],
    ),
    (
        endpoint(secret_encoding="hex"),
        [
            "7:15: webhooks.endpoints[0].secret: expected hexadecimal digits, as the sender shows it"
            ", got the value of '${SECRET}'",
        ],
    ),
    (
        endpoint(signature_header=None, preset="github", signature_format="stripe"),
        [
            "9:25: webhooks.endpoints[0].signature_format: expected one of hex, base64, base64url beside the other keys"
            ", got 'stripe'; write preset: stripe alone",
        ],
    ),
    (endpoint(signature_header=None, signed='"{body}"'), [
        "5:7: webhooks.endpoints[0]: the key 'signature_header' is missing"]),
    (endpoint(signed='"{header:X-T}"'), [
        "9:15: webhooks.endpoints[0].signed: expected {body} exactly once, got '{header:X-T}'"]),
    (endpoint(signed='"{body}{body}"'), [
        "9:15: webhooks.endpoints[0].signed: expected {body} exactly once, got '{body}{body}'"]),
    (endpoint(signed='"{bdy}{body}"'), [
        "9:15: webhooks.endpoints[0].signed: expected {body}, {header:NAME}, {part:TEXT} or {url}, got '{bdy}'"
        " (did you mean 'body'?)"]),
    (endpoint(signed='"{header:}{body}"'), [
        "9:15: webhooks.endpoints[0].signed: expected a string, got an empty string"]),
    (endpoint(signed='"{{body}"'), [
        "9:15: webhooks.endpoints[0].signed: expected braces only around body, header:NAME, part:TEXT and url"
        ", got '{{body}'"]),
    (endpoint(signed='"{part:t=}.{body}"'), [
        "9:15: webhooks.endpoints[0].signed: expected a signature_separator (comma, semicolon or blank) beside it"
        ", got {part:t=} without one"]),
    (endpoint(signed='"{part:t,}.{body}"', signature_separator="comma"), [
        "9:15: webhooks.endpoints[0].signed: expected a part without the separator in it, got {part:t,}"]),
    (endpoint(signed='"{header:x-sig}.{body}"'), [
        "9:15: webhooks.endpoints[0].signed: expected another header than that of the signature"
        ", got {header:x-sig}"]),
    (endpoint(signature_header="[]"), [
        "8:25: webhooks.endpoints[0].signature_header: expected at least one header, got an empty list"]),
    (endpoint(signature_header="[X-A, x-a]"), [
        "8:25: webhooks.endpoints[0].signature_header: expected each header once, got one that is repeated"]),
    (endpoint(signature_prefix='"a,b"', signature_separator="comma"), [
        "9:25: webhooks.endpoints[0].signature_prefix: expected a prefix without the separator, got 'a,b'"]),
    (endpoint(signature_separator='","'), [
        "9:28: webhooks.endpoints[0].signature_separator: expected one of none, comma, semicolon, blank, got ','"]),
    (endpoint(dedupe="'json:'"), [
        "9:15: webhooks.endpoints[0].dedupe: expected a header, json:PATH, form:NAME or signature, got 'json:'"]),
    (endpoint(dedupe="X-Id", dedupe_header="X-Id"), [
        "10:22: webhooks.endpoints[0].dedupe_header: expected either 'dedupe' or 'dedupe_header', got both"]),
    (endpoint(success_status="201"), [
        "9:23: webhooks.endpoints[0].success_status: expected 200, 202 or 204, got 201"]),
    (endpoint(handshake="slac"), [
        "9:18: webhooks.endpoints[0].handshake: expected one of asana, dropbox, front, graph, head, linkedin, meta"
        ", notion, okta, oura, slack, strava, twitch, woocommerce, x-crc, zoom, none, or a mapping, got 'slac'"
        " (did you mean 'slack'?)"]),
    (endpoint(handshake="meta"), [
        "9:18: webhooks.endpoints[0].handshake: expected the key 'verify_token' beside it, which"
        " query:hub.verify_token must have"]),
    (endpoint(handshake="meta", verify_token="hunter2"), [
        "9:18: webhooks.endpoints[0].handshake: expected the key 'verify_token' beside it, which"
        " query:hub.verify_token must have",
        "10:21: webhooks.endpoints[0].verify_token: expected one ${NAME} and nothing else, got a literal; put the"
        " secret into service.env_file or the environment"]),
    (endpoint(handshake="{method: POST}"), [
        "9:27: webhooks.endpoints[0].handshake.method: expected 'when' or 'take' with POST, or every delivery would be"
        " a handshake"]),
    (endpoint(handshake="{method: GET, take: 'json:a'}"), [
        "9:27: webhooks.endpoints[0].handshake.method: expected POST, as json:a is in a body, got 'GET'"]),
    (endpoint(handshake="{method: GET, take: 'query:a', mac: hex}"), [
        "9:54: webhooks.endpoints[0].handshake.mac: expected 'answer: json' and a 'mac_name' with it"]),
    (endpoint(handshake="{method: GET, take: 'query:a', answer: header}"), [
        "9:57: webhooks.endpoints[0].handshake.answer: expected a header in 'take' with the answer 'header'"]),
    (endpoint(handshake="{method: GET, take: 'query:a', answer: json}"), [
        "9:57: webhooks.endpoints[0].handshake.answer: expected a 'name' for the challenge with the answer 'json'"]),
    (endpoint(handshake="{method: GET, answer: text}"), [
        "9:40: webhooks.endpoints[0].handshake.answer: expected 'take', the place of the challenge, with the answer"
        " 'text'"]),
    (endpoint(handshake="{method: GET, take: 'query:a', signed: true}"), [
        "9:57: webhooks.endpoints[0].handshake.signed: expected 'method: POST' with it, as GET has no body to sign"]),
    (endpoint(handshake="{method: GET, take: 'body:a'}"), [
        "9:38: webhooks.endpoints[0].handshake.take: expected query:NAME, json:PATH, header:NAME or form:NAME"
        ", got 'body:a'"]),
    (endpoint(replay="5m"), ["9:7: webhooks.endpoints[0].replay: unknown key"]),
    (
        "webhooks: {listen: '${SECRET}'}\n",
        [
            "1:20: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
            ", got the value of '${SECRET}'",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_each_wrong_value_of_an_endpoint_is_named_at_its_place(tmp_path, text, expected):
    assert lines(load_text(tmp_path, text, {**ENVIRON, "KEY": "whsec_bWFkZS11cCBrZXkgb2YgMzIgYnl0ZXM="})) == expected


BROKEN = ["whsec_", "whsec_=", "whsec_not%base64", "whsec_c2Vjc", "whsec_c2VjcmV0 c2VjcmV0", "whsec_üüüüüüüü"]


@pytest.mark.parametrize("secret", BROKEN)
def test_a_secret_that_no_signature_can_fit_is_an_error_that_does_not_show_it(tmp_path, secret):
    text = endpoint(signature_format="standard", secret="['${SECRET}', '${OTHER}']")
    assert lines(load_text(tmp_path, text, {**ENVIRON, "OTHER": secret})) == [
        "7:29: webhooks.endpoints[0].secret[1]: expected base64 after 'whsec_', as the sender shows it"
        ", got the value of '${OTHER}'",
    ]


@pytest.mark.parametrize("secret", BROKEN)
def test_the_prefix_of_a_secret_means_nothing_to_other_formats(tmp_path, secret):
    text = endpoint(signature_format="hex", secret="${OTHER}")
    assert lines(load_text(tmp_path, text, {"OTHER": secret})) == []


def test_a_warning_of_a_short_secret_is_one_line_whatever_the_path_is(tmp_path):
    loaded = load_text(tmp_path, endpoint(path='"/a\\nb\\e[31m"', secret="${SHORT}"), {"SHORT": "short"})
    assert loaded.warnings == (
        f"{loaded.path}:7:15: webhooks.endpoints[0].secret: the secret of /a\\nb\\x1b[31m is shorter than 16 bytes",
    )


def test_a_secret_is_as_long_as_the_key_that_it_stands_for(tmp_path):
    text = endpoint(signature_format="standard", secret="['${LONG}', '${OTHER}']")
    environ = {"LONG": "whsec_c2l4dGVlbi1ieXRlcy14eA==", "OTHER": "whsec_ZmlmdGVlbi1ieXRlcy14"}
    loaded = load_text(tmp_path, text, environ)
    assert lines(loaded) == []
    assert loaded.warnings == (
        f"{loaded.path}:7:27: webhooks.endpoints[0].secret[1]: the secret of /a is shorter than 16 bytes",
    )


SAME = ("webhooks.endpoints[0] has the same secret for another signed text, so that a request to one could be sent to"
        " the other; use another secret")


def test_one_secret_for_two_signed_texts_is_an_error_with_a_new_key_and_else_a_warning(tmp_path):
    def loaded(keys):
        return load_text(tmp_path, endpoint() + f"    - {{path: /b, plugin: echo, secret: '${{SECRET}}', {keys}}}\n")

    for keys in ("preset: stripe", "signature_header: X-T, signed: '{header:X-Time}.{body}'"):
        assert lines(loaded(keys)) == [f"9:40: webhooks.endpoints[1].secret: {SAME}"]
    legacy = loaded("signature_format: slack")
    assert (lines(legacy), legacy.warnings) == ([], (
        f"{legacy.path}:9:40: webhooks.endpoints[1].secret: {SAME}",))
    # The MAC of a challenge is one of a form at the other endpoint.
    assert lines(loaded("preset: x")) == [f"9:40: webhooks.endpoints[1].secret: {SAME}"]
    for keys in ("preset: github", "preset: shopify", "signature_header: X-Other"):
        same = loaded(keys)
        assert (lines(same), same.warnings) == ([], ())
