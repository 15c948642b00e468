"""The library's `oauth` against a token endpoint that replaces refresh tokens, refuses them and talks nonsense."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support import standin
from support.in_process import library
from support.notified import SECRET

lib = library()


@pytest.fixture
def service() -> Iterator[standin.Service]:
    def give(asked: standin.Asked) -> standin.Reply:
        number = int(asked.form["refresh_token"].removeprefix(SECRET))
        return 200, {"access_token": f"t{number}", "refresh_token": f"{SECRET}{number + 1}", "expires_in": 3600}

    with standin.serving(give) as running:
        yield running


def config(service: standin.Service, **more: str) -> dict:
    return {"token_url": service.url, "client_id": "c", "refresh_token": f"{SECRET}1", **more}


def test_a_token_is_fetched_kept_and_renewed_with_the_latest_refresh_token(service):
    state = lib.oauth(config(service, scope="mail"), {})
    assert (state["access_token"], state["refresh_token"]) == ("t1", f"{SECRET}2")
    assert service.asked[0].form == {"grant_type": "refresh_token", "client_id": "c", "scope": "mail",
                                     "refresh_token": f"{SECRET}1"}
    assert lib.oauth(config(service), state) == {}
    renewed = lib.oauth(config(service), state | {"token_expires_at": time.time() + 60})
    assert (renewed["access_token"], renewed["refresh_token"]) == ("t2", f"{SECRET}3")
    # Another one in the configuration begins anew.
    assert lib.oauth(config(service, refresh_token=f"{SECRET}7"), state)["access_token"] == "t7"


def test_a_server_that_replaces_no_refresh_token_keeps_it(service):
    service.faults = [(200, {"access_token": "t"})]
    state = lib.oauth(config(service), {})
    assert state["refresh_token"] == f"{SECRET}1" and state["token_expires_at"] > time.time() + 3000


@pytest.mark.parametrize("fault", [*standin.PASSING, standin.HTML, (200, []), (200, {"access_token": 5})])
def test_what_may_pass_is_retried(service, fault):
    service.faults = [fault]
    with pytest.raises(lib.Failed) as caught:
        lib.oauth(config(service), {}, timeout=0.2)
    assert caught.value.retry and SECRET not in str(caught.value)


@pytest.mark.parametrize(("answer", "text"), [
    ((400, {"error": f"invalid_grant {SECRET}1"}), "invalid_grant ***"), ((401, "no"), "401"), ((403, []), "403")])
def test_a_refresh_token_that_is_refused_is_not_tried_again(service, answer, text):
    service.faults = [answer]
    with pytest.raises(lib.Permanent) as caught:
        lib.oauth(config(service), {})
    assert str(caught.value) == f"{service.url} refuses the refresh token: {text}"


@pytest.mark.parametrize(("value", "good"), [
    ({"token_url": "https://x/", "client_id": "c", "refresh_token": "r"}, True),
    ({"token_url": "https://x/", "client_id": "c", "refresh_token": "r", "scope": "a b", "client_secret": "s"}, True),
    ({"token_url": "x", "client_id": "c", "refresh_token": "r"}, False), ({"token_url": "https://x/"}, False),
    ({"token_url": "https://x/", "client_id": "c", "refresh_token": "r", "other": "x"}, False), ("x", False),
    ({"token_url": "https://x/", "client_id": 5, "refresh_token": "r"}, False)])
def test_what_it_needs_is_checked(value, good):
    assert lib.is_oauth(value) is good
