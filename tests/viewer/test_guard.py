"""Who is let in, and what of the texts of others is shown as it is."""

import dataclasses

import pytest

from viewer.guard import COOKIE, HEADERS, LOCAL, Asked, Guard
from viewer.words import plain

GUARD = Guard(token="right")
HOST = "127.0.0.1:8080"
KNOWN = Asked("/", HOST, cookies=f"other=1; {COOKIE}_8080=right")


def test_who_opened_the_printed_address_is_let_in() -> None:
    answer = GUARD.judge(Asked("/?token=right", HOST))
    assert answer is not None
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie, *marks = answer.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} == set(marks)
    assert GUARD.judge(Asked("/", HOST, cookies=cookie)) is None
    assert GUARD.judge(Asked("/", HOST, f"http://{HOST}", cookie)) is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"cookies": ""}, 403),
        ({"cookies": f"{COOKIE}_8080=wrong"}, 403),
        ({"cookies": f"{COOKIE}_8080="}, 403),
        ({"cookies": f"{COOKIE}_8081=right"}, 403),  # of another viewer on this machine
        ({"cookies": "", "path": "/?token=wrong"}, 403),
        ({"cookies": "", "path": "/?token="}, 403),
        ({"cookies": "", "path": "/?token=r%C3%A4cht"}, 403),
        ({"host": "evil.example:8080"}, 421),  # a name that was made to mean 127.0.0.1
        ({"host": ""}, 421),
        ({"host": "[::1"}, 421),
        ({"host": "127.0.0.1:port"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),  # another program's page on this machine
        ({"origin": "null"}, 403),
        ({"path": "/index.html"}, 404),
        ({"path": "/../../etc/passwd"}, 404),
        ({"path": "/%2e%2e/%2e%2e/etc/passwd"}, 404),
        ({"path": "//etc/passwd"}, 404),
        ({"path": "/..\\..\\x"}, 404),
    ],
)
def test_nobody_else_is(change: dict[str, str], status: int) -> None:
    assert GUARD.judge(KNOWN) is None
    answer = GUARD.judge(dataclasses.replace(KNOWN, **change))
    assert answer is not None
    assert answer.status == status
    assert "right" not in answer.text + "".join(answer.headers.values())


def test_names_are_any_where_others_may_come_and_tokens_are_never_the_same() -> None:
    assert Guard(None, "right").judge(dataclasses.replace(KNOWN, host="lab:8080")) is None
    assert {"127.0.0.1", "::1", "localhost"} == LOCAL
    made = {Guard().token for _ in range(50)}
    assert len(made) == 50
    assert min(map(len, made)) >= 32


def test_the_page_may_ask_nobody_else() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "*" not in policy


def test_no_text_of_others_is_markup() -> None:
    marks = "<script>alert(1)</script> **bold** ![x](http://a) `c` | cell\n# head"
    shown = plain(marks)
    assert "\n" not in shown
    for k, letter in enumerate(shown):
        if letter in "<>*!()[]`|#":
            assert shown[k - 1] == "\\"
    assert plain("grasp of a mug 12") == "grasp of a mug 12"
