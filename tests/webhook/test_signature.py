from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

import pytest

from ductile.config.signing import decode_secret, read_scheme
from ductile.validation import Problem, Section
from ductile.webhook.http_head import Head
from ductile.webhook.signature import Unverified
from ductile.webhook.signature import verify as verified_digest

SECRET = "It's a Secret to Everybody"
BODY = b"Hello, World!"
Headers = list[tuple[str, str]]

SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack"
    b".com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c")
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_ID, STANDARD_TIME = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"
STANDARD_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def verify(body: bytes, headers: Headers, *, secrets: Sequence[str], header: str, format: str) -> bool:
    """Return whether a request is verified at an endpoint with these keys."""
    problems: list[Problem] = []
    scheme, encoding, _ = read_scheme(Section({"signature_header": header, "signature_format": format}, (), problems))
    if problems:
        return False
    keys = [key for each in secrets if (key := decode_secret(each, encoding)) is not None]
    head = Head(method="POST", path="/", query="", version="HTTP/1.1", headers=tuple(headers))
    try:
        return len(verified_digest(body, head, scheme, keys)) == 32
    except Unverified:
        return False


def digest(secret: str | bytes, signed: bytes) -> bytes:
    return hmac.digest(secret.encode() if isinstance(secret, str) else secret, signed, "sha256")


def in_hex(secret: str | bytes, signed: bytes) -> str:
    return digest(secret, signed).hex()


def in_base64(secret: str | bytes, signed: bytes) -> str:
    return base64.b64encode(digest(secret, signed)).decode()


def plain(value: str, format: str, *, secrets: tuple[str, ...] = (SECRET,), body: bytes = BODY) -> bool:
    return verify(body, [("Host", "example.org"), ("X-Sig", value)], secrets=secrets, header="X-Sig", format=format)


def stripe(value: str, *, body: bytes = BODY) -> bool:
    return verify(body, [("Stripe-Signature", value)], secrets=[SECRET], header="Stripe-Signature", format="stripe")


def slack(headers: Headers, *, body: bytes = SLACK_BODY) -> bool:
    return verify(body, headers, secrets=[SLACK_SECRET], header="X-Slack-Signature", format="slack")


def standard(headers: Headers, *, secrets: tuple[str, ...] = (STANDARD_SECRET,), body: bytes = STANDARD_BODY) -> bool:
    return verify(body, headers, secrets=secrets, header="webhook-signature", format="standard")


def standard_headers(signature: str, *, webhook_id: str = STANDARD_ID, timestamp: str = STANDARD_TIME) -> Headers:
    return [("Webhook-Id", webhook_id), ("Webhook-Timestamp", timestamp), ("Webhook-Signature", signature)]


GITHUB = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@pytest.mark.parametrize("value", [
    f"sha256={GITHUB}", GITHUB, GITHUB.upper(), f"sha256={GITHUB.upper()}", f" {GITHUB}\t",
])
def test_the_example_of_github_verifies_as_hex_in_either_case(value: str) -> None:
    assert plain(value, "hex")


@pytest.mark.parametrize("value", [
    "", "sha256=", f"sha1={GITHUB}", f"SHA256={GITHUB}", f"sha256=sha256={GITHUB}", GITHUB[:-1], GITHUB + "0",
    GITHUB[:-1] + "8", f"{GITHUB},{GITHUB}", f"{GITHUB[:32]} {GITHUB[32:]}", "z" * 64, "٣" * 64, "é", "\ud800", "\0",
    pytest.param("0" * 1_000_000, id="huge"),
    in_base64(SECRET, BODY), in_hex("another", BODY), in_hex(SECRET, BODY + b"\n"),
])
def test_anything_else_is_no_hex_signature(value: str) -> None:
    assert not plain(value, "hex")


def test_base64_of_the_digest_verifies() -> None:
    assert plain("dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc=", "base64")


@pytest.mark.parametrize("value", [
    "", "=", "dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc", "dXEH6g6yUJ_CESIczphLijdXC211hsIsRvQ3nIsEPhc=",
    "dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhd=", "dXEH6g6yUJ/CESIc zphLijdXC211hsIsRvQ3nIsEPhc=",
    "DXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc=", "dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc==",
    "%%%%", "é", GITHUB,
])
def test_base64_is_read_strictly(value: str) -> None:
    assert not plain(value, "base64")


@pytest.mark.parametrize("format", ["hex", "base64"])
@pytest.mark.parametrize("body", [b"", b"\0\xff\xfe", "naïve".encode(), pytest.param(b"x" * 1_000_000, id="large")])
def test_any_body_can_be_signed(body: bytes, format: str) -> None:
    assert plain({"hex": in_hex, "base64": in_base64}[format](SECRET, body), format, body=body)
    assert not plain({"hex": in_hex, "base64": in_base64}[format](SECRET, body), format, body=body + b"\0")


@pytest.mark.parametrize("secrets", [
    (SECRET,), ("old", SECRET), (SECRET, "new"), ("a", SECRET, "b", SECRET), ("", SECRET),
])
def test_any_of_the_secrets_verifies(secrets: tuple[str, ...]) -> None:
    assert plain(GITHUB, "hex", secrets=secrets)


@pytest.mark.parametrize("secrets", [(), ("other",), ("It's a secret to everybody",), (SECRET + " ",), ("\ud800",)])
def test_no_other_secret_verifies(secrets: tuple[str, ...]) -> None:
    assert not plain(GITHUB, "hex", secrets=secrets)


def test_an_empty_secret_verifies_nothing() -> None:
    assert not plain(in_hex(b"", BODY), "hex", secrets=("",))


def test_a_secret_beyond_ascii_is_taken_as_utf_8() -> None:
    assert plain(in_hex("pässwörd".encode(), BODY), "hex", secrets=("pässwörd",))


@pytest.mark.parametrize("format", ["", "HEX", "sha256", "gitlab"])
def test_an_unknown_format_verifies_nothing(format: str) -> None:
    assert not plain(GITHUB, format)


@pytest.mark.parametrize("name", ["x-sig", "X-SIG", "X-Sig"])
@pytest.mark.parametrize("header", ["x-sig", "X-Sig"])
def test_names_of_headers_are_in_any_case(name: str, header: str) -> None:
    assert verify(BODY, [(name, GITHUB)], secrets=[SECRET], header=header, format="hex")


@pytest.mark.parametrize("headers", [
    [],
    [("X-Other", GITHUB)],
    [("X-Sig", GITHUB), ("X-Sig", GITHUB)],
    [("X-Sig", GITHUB), ("x-sig", "")],
    [("X-SIG", "é"), ("x-sig", GITHUB)],
    [("x_sig", GITHUB)],
])
def test_a_signature_header_that_is_missing_or_doubled_verifies_nothing(headers: Headers) -> None:
    assert not verify(BODY, headers, secrets=[SECRET], header="X-Sig", format="hex")


def test_another_header_may_be_doubled_or_beyond_ascii() -> None:
    headers = [("Via", "a"), ("via", "b"), ("X-Name", "\xe9\ud800"), ("\xe9", ""), ("X-Sig", GITHUB)]
    assert verify(BODY, headers, secrets=[SECRET], header="X-Sig", format="hex")


OLD = "0" * 64
STRIPE = in_hex(SECRET, b"1492774577." + BODY)


@pytest.mark.parametrize("value", [
    f"t=1492774577,v1={STRIPE}",
    f"v1={STRIPE},t=1492774577",
    f"t=1492774577,v1={STRIPE.upper()}",
    f"t=1492774577,v1={OLD},v1={STRIPE}",
    f"t=1492774577,v1={STRIPE},v1={OLD},v0={OLD}",
    pytest.param(f"t=1492774577,v1={OLD}" + f",v1={OLD}" * 1000 + f",v1={STRIPE}", id="the last of a thousand"),
])
def test_stripe_signs_its_timestamp_and_the_body(value: str) -> None:
    assert stripe(value)


def test_the_digest_of_stripe_is_what_openssl_computes() -> None:
    assert STRIPE == "de0e8295c6906c0e40f92a7a02c73c513199f02b268422241e1edc1f89f6056d"


@pytest.mark.parametrize("value", [
    "", "t", "t=", "v1=", ",,,", "=,=", f"v1={STRIPE}", "t=1492774577", f"t=1492774578,v1={STRIPE}",
    f"t=1492774577,v0={STRIPE}", f"t=1492774577,V1={STRIPE}", f"t=1492774577,v1={OLD}", f"t=,v1={STRIPE}",
    f"t=1492774577,t=1492774577,v1={STRIPE}", f"t=1492774577,t=,v1={STRIPE}", f"t=٣,v1={STRIPE}",
    f"t=1492774577,v1={in_hex(SECRET, BODY)}", f"t=,v1={in_hex(SECRET, b'.' + BODY)}",
    pytest.param("t=" + "9" * 100_000 + f",v1={STRIPE}", id="huge"),
])
def test_anything_else_is_no_signature_of_stripe(value: str) -> None:
    assert not stripe(value)


SLACK = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
SLACK_TIME = ("X-Slack-Request-Timestamp", "1531420618")


@pytest.mark.parametrize("value", [SLACK, "v0=" + SLACK[3:].upper()])
def test_the_example_of_slack_verifies_in_either_case(value: str) -> None:
    assert slack([SLACK_TIME, ("x-slack-signature", value)])


@pytest.mark.parametrize("headers", [
    [("X-Slack-Signature", SLACK)],
    [SLACK_TIME],
    [SLACK_TIME, SLACK_TIME, ("X-Slack-Signature", SLACK)],
    [SLACK_TIME, ("x-slack-request-timestamp", ""), ("X-Slack-Signature", SLACK)],
    [SLACK_TIME, ("X-Slack-Signature", SLACK), ("X-Slack-Signature", SLACK)],
    [("X-Slack-Request-Timestamp", "1531420619"), ("X-Slack-Signature", SLACK)],
    [("X-Slack-Request-Timestamp", "é"), ("X-Slack-Signature", SLACK)],
    [("X-Slack-Request-Timestamp", ""), ("X-Slack-Signature", f"v0={in_hex(SLACK_SECRET, b'v0::' + SLACK_BODY)}")],
    [SLACK_TIME, ("X-Slack-Signature", SLACK[3:])],
    [SLACK_TIME, ("X-Slack-Signature", "v1" + SLACK[2:])],
    [SLACK_TIME, ("X-Slack-Signature", "v0" + SLACK[3:])],
    [SLACK_TIME, ("X-Slack-Signature", "v0=")],
    [SLACK_TIME, ("X-Slack-Signature", f"v0={in_hex(SLACK_SECRET, SLACK_BODY)}")],
])
def test_anything_else_is_no_signature_of_slack(headers: Headers) -> None:
    assert not slack(headers)


@pytest.mark.parametrize("value", [
    STANDARD_SIGNATURE,
    f"v1,AAAA {STANDARD_SIGNATURE}",
    f"{STANDARD_SIGNATURE} v1a,AAAA v2,AAAA v1 ,, v1,",
])
def test_the_example_of_standard_webhooks_verifies(value: str) -> None:
    assert standard(standard_headers(value))


@pytest.mark.parametrize(("secret", "key"), [
    ("whsec_c2VjcmV0", b"secret"),
    ("whsec_c2VjcmV0cw==", b"secrets"),
    ("whsec_c2VjcmV0cw", b"secrets"),
    ("c2VjcmV0", b"c2VjcmV0"),
    ("WHSEC_c2VjcmV0", b"WHSEC_c2VjcmV0"),
    ("a phrase, not base64", b"a phrase, not base64"),
])
def test_only_a_secret_with_its_prefix_is_decoded(secret: str, key: bytes) -> None:
    signed = f"{STANDARD_ID}.{STANDARD_TIME}.".encode() + STANDARD_BODY
    assert standard(standard_headers(f"v1,{in_base64(key, signed)}"), secrets=(secret,))


def test_the_prefix_means_nothing_in_other_formats() -> None:
    assert plain(in_hex("whsec_c2VjcmV0", BODY), "hex", secrets=("whsec_c2VjcmV0",))


@pytest.mark.parametrize("secret", [
    "whsec_", "whsec_=", "whsec_%%%%", "whsec_c2Vjc", "whsec_é", "whsec_c2Vj\ncmV0", "whsec_\ud800",
])
def test_a_broken_key_verifies_nothing_and_hinders_no_other(secret: str) -> None:
    signed = f"{STANDARD_ID}.{STANDARD_TIME}.".encode() + STANDARD_BODY
    for what_a_lenient_reader_makes_of_it in (b"", b"secret"):
        forged = f"v1,{in_base64(what_a_lenient_reader_makes_of_it, signed)}"
        assert not standard(standard_headers(forged), secrets=(secret,))
    assert standard(standard_headers(STANDARD_SIGNATURE), secrets=(secret, STANDARD_SECRET))


@pytest.mark.parametrize("headers", [
    standard_headers(""),
    standard_headers(STANDARD_SIGNATURE[3:]),
    standard_headers("v2" + STANDARD_SIGNATURE[2:]),
    standard_headers(STANDARD_SIGNATURE.replace(",", "=")),
    standard_headers(STANDARD_SIGNATURE.rstrip("=")),
    standard_headers(STANDARD_SIGNATURE[:-2] + "F="),
    standard_headers(STANDARD_SIGNATURE, webhook_id="msg_other"),
    standard_headers(STANDARD_SIGNATURE, webhook_id=""),
    standard_headers(STANDARD_SIGNATURE, webhook_id="é"),
    standard_headers(STANDARD_SIGNATURE, timestamp="1614265331"),
    standard_headers(STANDARD_SIGNATURE, timestamp=""),
    standard_headers(STANDARD_SIGNATURE, timestamp="9" * 100_000),
    *([*standard_headers(STANDARD_SIGNATURE), (name, value)] for name, value in standard_headers(STANDARD_SIGNATURE)),
    *(standard_headers(STANDARD_SIGNATURE)[:missing] + standard_headers(STANDARD_SIGNATURE)[missing + 1:]
      for missing in range(3)),
])
def test_anything_else_is_no_signature_of_standard_webhooks(headers: Headers) -> None:
    assert not standard(headers)


def test_an_old_request_verifies_as_there_is_no_time_window() -> None:
    assert stripe(f"t=0,v1={in_hex(SECRET, b'0.' + BODY)}")


# A text that a sender has signed, sent again with a separator of its body taken for one of the format's.
def test_the_timestamp_of_slack_cannot_eat_the_body() -> None:
    signature = ("X-Slack-Signature", f"v0={in_hex(SLACK_SECRET, b'v0:1:a=2:b')}")
    assert slack([("X-Slack-Request-Timestamp", "1"), signature], body=b"a=2:b")
    assert not slack([("X-Slack-Request-Timestamp", "1:a=2"), signature], body=b"b")


def test_the_timestamp_of_stripe_cannot_eat_the_body() -> None:
    signature = in_hex(SECRET, b'1.{"a": 2.5}')
    assert stripe(f"t=1,v1={signature}", body=b'{"a": 2.5}')
    assert not stripe(f't=1.{{"a": 2,v1={signature}', body=b"5}")


def test_neither_id_nor_timestamp_of_standard_webhooks_can_eat_the_body() -> None:
    signature = "v1," + in_base64("key", b'id.1.{"a":"2.3.4"}')

    def verifies(webhook_id: str, timestamp: str, body: bytes) -> bool:
        headers = standard_headers(signature, webhook_id=webhook_id, timestamp=timestamp)
        return standard(headers, secrets=("key",), body=body)

    assert verifies("id", "1", b'{"a":"2.3.4"}')
    assert not verifies("id", '1.{"a":"2', b'3.4"}')
    assert not verifies('id.1.{"a":"2', "3", b'4"}')


FORMATS = ("hex", "base64", "stripe", "slack", "standard")
NASTY = ("", " ", "=", ",", "v1", "v1,", "v0=", "t=", "t=1,v1", "t=1,v1=", "\ud800", "é", "\0", "\r\n x", "=" * 65536,
         "v1, " * 20_000, "t=1" + ",v1=" * 10_000, "9" * 65536)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", NASTY, ids=range(len(NASTY)))
def test_no_header_makes_it_raise(format: str, value: str) -> None:
    names = ("X-Sig", "X-Slack-Request-Timestamp", "webhook-id", "webhook-timestamp", "", "é\ud800")
    for usual in ("1", value):
        headers = [(name, value if name == "X-Sig" else usual) for name in names]
        for body in (b"", b"\xff" * 100):
            assert not verify(body, headers, secrets=["s", "whsec_!", ""], header="X-Sig", format=format)
