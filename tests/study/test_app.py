"""The study over HTTP: a real server, real requests."""

import concurrent.futures
import http.client
import logging
import os
import re
import socket
from urllib.parse import urlsplit

from raters import COLOURS, Reply, make_items

from study import guard, pages
from study.ballots import StudyError

BEST_FIRST = {"alpha": 1, "beta": 2, "gamma": 3}
"""Places that one of our raters gives."""


def test_from_the_first_page_to_the_last(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    first = one.get()
    assert first.status == 200
    assert "4 comparisons" in " ".join(first.text.split())
    assert store.everybody() == []  # looking is not taking part
    page = one.begin()
    for number in range(1, 5):
        assert f"{number} of 4" in page.text
        assert len(page.page.media) == 3
        page = one.answer(page, BEST_FIRST)
    assert "All 4 answered" in page.text
    ((person, answers),) = store.everybody()
    assert not person.finished
    page = one.finish(page)
    assert "Thank you" in page.text
    ((person, answers),) = store.everybody()
    assert person.finished
    assert {trial: a.points for trial, a in answers.items()} == dict.fromkeys(range(4), (3, 2, 1))
    # Every address leads to the end now.
    for path in ("", "trial/1", "review", "thanks"):
        assert "Thank you" in one.follow(one.get(path)).text


def test_scores_may_be_equal(serving, rater) -> None:
    address, store = serving("score")
    one = rater(address)
    page = one.begin()
    assert "0 not at all, 5 fully" in page.text
    assert len(re.findall(r'type="radio"', page.text)) == 3 * 6
    page = one.answer(page, {"alpha": 5, "beta": 0, "gamma": 5})
    assert "2 of 4" in page.text
    ((_, answers),) = store.everybody()
    assert [a.points for a in answers.values()] == [(5, 0, 5)]


def test_nothing_tells_methods_apart(serving, rater, tmp_path) -> None:
    items = make_items(
        tmp_path / "named", objects=("teapot", "hammer"), methods=("alpha", "beta"), samples=2
    )
    for path in sorted(items.rglob("*.png")):
        # Methods are often made one after another.
        seconds = {"alpha": 1e9, "beta": 1.5e9}[path.parent.name]
        os.utime(path, (seconds, seconds))
        path.rename(path.with_name(f"sample-{path.stem}.png"))
    address, _ = serving(items=items)
    one = rater(address)
    addresses = []
    headers = set()
    page = one.begin()
    while page.page.media:
        everything = page.text + repr(page.headers)
        for media in page.page.media:
            reply = one.get(media)
            everything += media + repr(reply.headers)
            assert reply.headers["content-type"] == "image/png"
            addresses.append(media)
            told = {name: value for name, value in reply.headers.items() if name != "date"}
            del told["content-length"]  # a picture has a length; it is seen anyway
            headers.add(tuple(sorted(told.items())))
        for secret in (*COLOURS, "teapot", "hammer", "sample-", str(tmp_path)):
            assert secret not in everything
        page = one.answer(page, {"alpha": 1, "beta": 2})
    assert len(set(addresses)) == 8
    assert len(headers) == 1
    assert all(re.fullmatch(r"/s/[\w-]{22}/media/[0-9a-f]{32}", media) for media in addresses)


def test_people_see_different_orders(serving, rater) -> None:
    address, store = serving()
    for index in range(6):
        one = rater(address)
        page = one.begin().page
        person = store.everybody()[index][0]
        methods = [store.design.methods[m] for m in person.shown[0][1]]
        assert one.methods(page) == methods
    assert len({person.shown for person, _ in store.everybody()}) == 6


def test_a_reload_and_a_new_connection_come_back_to_the_same_trial(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.answer(one.begin(), BEST_FIRST)
    again = rater(address)
    again.cookie = one.cookie
    for path in ("", "trial/2", "trial/3", "trial/99", "review", "thanks"):
        assert again.follow(again.get(path)).page.media == page.page.media
    # A link from elsewhere brings no cookie: the first page shows, and its form does bring it.
    welcome = again.send("GET", "", headers={"Cookie": ""}).page
    assert again.follow(again.post(welcome.action, welcome.hidden)).page.media == page.page.media
    assert len(store.everybody()) == 1


def test_a_first_form_sent_twice_makes_one_participant(serving, rater) -> None:
    address, store = serving()
    welcome = rater(address).get().page

    def send(_: int) -> str:
        one = rater(address)
        assert one.post(welcome.action, welcome.hidden).status == 303
        return one.cookie

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        cookies = set(pool.map(send, range(4)))
    assert len(cookies) == len(store.everybody()) == 1


def test_the_cookie_is_closed_to_scripts_and_other_sites(serving, rater) -> None:
    address, _ = serving()
    one = rater(address)
    page = one.get().page
    cookie = one.post(page.action, page.hidden).headers["set-cookie"]
    parts = [part.strip() for part in cookie.split(";")]
    assert re.fullmatch(r"participant=[0-9a-f]{32}", parts[0])
    assert {"HttpOnly", "SameSite=strict", f"Path={urlsplit(address).path}"} <= set(parts)


def test_ties_are_refused_and_what_was_entered_stays(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin()
    form = one.fill(page.page, {"alpha": 1, "beta": 1, "gamma": 2})
    reply = one.post(page.page.action, form)
    assert reply.status == 422
    assert (
        "Not stored: two pictures have the same place; give each a place of its own." in reply.text
    )
    assert reply.page.checked == {k: str(v) for k, v in form.items() if k.startswith("value-")}
    assert reply.page.media == page.page.media
    assert store.answers(1) == {}
    assert "2 of 4" in one.answer(reply, BEST_FIRST).text


def test_a_missing_value_is_named_and_the_others_stay(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin().page
    form = one.fill(page, BEST_FIRST)
    del form[page.fields[1]]
    reply = one.post(page.action, form)
    assert reply.status == 422
    assert "no value yet for B" in reply.text
    assert sorted(reply.page.checked) == [page.fields[0], page.fields[2]]
    assert store.answers(1) == {}


def test_values_that_no_page_offers_are_refused(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin().page
    form = one.fill(page, BEST_FIRST)
    for value, status in (("0", 422), ("4", 422), ("99999", 422)):
        assert one.post(page.action, {**form, page.fields[0]: value}).status == status
    for value in ("-1", "1.0", "x", "١", "=1", "1" * 5000):
        assert one.post(page.action, {**form, page.fields[0]: value}).status == 400
        assert one.post(page.action, {**form, "revision": value}).status == 400
    assert one.post(page.action, {**form, "revision": ""}).status == 400
    assert one.post(page.action, {**form, "revision": "7"}).status == 409
    assert store.answers(1) == {}


def test_back_shows_the_answer_and_a_change_is_recorded(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.answer(one.begin(), BEST_FIRST)
    (back,) = page.page.links
    before = one.get(back)
    given = dict(zip(before.page.fields, one.methods(before.page), strict=True))
    assert {given[f]: int(v) for f, v in before.page.checked.items()} == BEST_FIRST
    page = one.answer(before, {"alpha": 3, "beta": 2, "gamma": 1})
    assert "2 of 4" in page.text
    (answer,) = store.answers(1).values()
    assert (answer.revision, answer.points) == (1, (1, 2, 3))


def test_a_form_sent_twice_is_one_vote(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin().page
    form = one.fill(page, BEST_FIRST)
    replies = [one.post(page.action, form) for _ in range(3)]
    assert {(r.status, r.headers["location"]) for r in replies} == {(303, one.root + "trial/2")}
    (answer,) = store.answers(1).values()
    assert answer.revision == 0


def test_two_windows_with_different_answers(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin()
    other = one.get("trial/1")
    one.answer(page, BEST_FIRST)
    form = one.fill(other.page, {"alpha": 3, "beta": 2, "gamma": 1})
    reply = one.post(other.page.action, form)
    assert reply.status == 409
    assert "answered in another window" in reply.text
    given = dict(zip(reply.page.fields, one.methods(reply.page), strict=True))
    assert {given[f]: int(v) for f, v in reply.page.checked.items()} == BEST_FIRST
    assert store.answers(1)[store.start(one.cookie.split("=")[1]).shown[0][0]].points == (3, 2, 1)
    one.answer(reply, {"alpha": 3, "beta": 2, "gamma": 1})
    assert [a.points for a in store.answers(1).values()] == [(1, 2, 3)]


def test_after_the_end_a_form_changes_nothing(serving, rater) -> None:
    address, store = serving(objects=("mug",), samples=1)
    one = rater(address)
    page = one.begin()
    review = one.answer(page, BEST_FIRST)
    late = one.get("trial/1").page
    one.finish(review)
    reply = one.post(late.action, one.fill(late, {"alpha": 3, "beta": 2, "gamma": 1}))
    assert (reply.status, reply.headers["location"]) == (303, one.root + "thanks")
    assert [a.points for a in store.answers(1).values()] == [(3, 2, 1)]


def test_trials_ahead_are_closed(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin().page
    form = one.fill(page, BEST_FIRST)
    reply = one.post("trial/3", form)
    assert (reply.status, reply.headers["location"]) == (303, one.root + "trial/1")
    assert one.post("finish", page.hidden).headers["location"] == one.root + "trial/1"
    assert store.answers(1) == {}


def test_the_next_person_at_the_same_device(serving, rater) -> None:
    address, store = serving(objects=("mug",), samples=1)
    one = rater(address)
    page = one.begin().page
    assert one.post("leave", page.hidden).status == 303
    assert one.get("trial/1").status == 200  # not before the end
    thanks = one.finish(one.answer(one.get("trial/1"), BEST_FIRST))
    welcome = one.finish(thanks)
    assert "Begin or continue" in welcome.text
    one.cookie = ""  # its time is over: a browser drops it
    one.answer(one.begin(), BEST_FIRST)
    assert [len(answers) for _, answers in store.everybody()] == [1, 1]


def test_without_the_token_there_is_nothing(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    media = one.begin().page.media[0].rsplit("/", 1)[1]
    wrong = "/s/" + "A" * 22
    paths = ["/", "/s", "/s/", "/docs", "/openapi.json", "/s/%C3%A9/trial/1"]
    for path in [*paths, f"{wrong}/", f"{wrong}/trial/1", f"{wrong}/media/{media}"]:
        reply = one.get(path)
        assert reply.status == 404
        assert store.token not in reply.text
    assert one.post(f"{wrong}/start", {"nonce": "n" * 32}).status == 404
    assert len(store.everybody()) == 1


PATHS = (
    "media/../../study.sqlite",
    "media/..%2f..%2fstudy%2fstudy.sqlite",
    "media/%2e%2e/%2e%2e/etc/passwd",
    "media//etc/passwd",
    "media/%00",
    "media/0.png",
    "media/bottle/alpha/0.png",
    "media/",
    "trial/0",
    "trial/-1",
    "trial/x",
    "trial/1e3",
    "trial/99999999999999999999",
    "../../etc/passwd",
    "templates/base.html",
)


def test_paths_lead_nowhere_else(serving, rater) -> None:
    address, _ = serving()
    one = rater(address)
    one.begin()
    for path in PATHS:
        reply = one.get(path)
        assert reply.status == 404, path
        assert b"SQLite" not in reply.body
        assert b"root:" not in reply.body


def refusal(one, page, **headers: str) -> Reply:
    return one.post(page.action, one.fill(page, BEST_FIRST), headers)


def test_forms_from_elsewhere_are_refused(serving, rater) -> None:
    address, store = serving()
    one, two = rater(address), rater(address)
    page = one.begin().page
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{one.host}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert refusal(one, page, **headers).status == 403
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        assert refusal(one, page, **{"Content-Type": kind}).status == 415
    form = one.fill(page, BEST_FIRST)
    others = two.begin().page.hidden["form_token"]
    for given in ("", "0" * 32, "é", others):
        assert one.post(page.action, {**form, "form_token": given}).status == 403
    assert store.answers(1) == {}
    fine = {"Origin": f"http://{one.host}", "Sec-Fetch-Site": "same-origin"}
    assert refusal(one, page, **fine).status == 303


def test_a_form_without_a_cookie_stores_nothing(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin().page
    form = one.fill(page, BEST_FIRST)
    for cookie in ("", "participant=" + "0" * 32, "participant=%00é".encode().decode("latin-1")):
        reply = one.post(page.action, form, {"Cookie": cookie})
        assert (reply.status, reply.headers["location"]) == (303, one.root)
    assert store.answers(1) == {}


def test_only_this_machines_names_are_answered(serving, rater) -> None:
    """A page elsewhere whose name was pointed at this machine reads nothing."""
    address, _ = serving()
    one = rater(address)
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::", "evil.example:80"):
        assert one.get(Host=host).status == 421
        one.close()
    port = one.host.split(":")[1]
    for host in (one.host, f"localhost:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert one.get(Host=host).status == 200


def test_headers_of_every_answer(serving, rater) -> None:
    address, _ = serving()
    one = rater(address)
    page = one.begin()
    for reply in (page, one.get("/nothing"), one.get(page.page.media[0]), one.get(Host="evil")):
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; img-src 'self'; media-src 'self'; style-src")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "script" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "same-origin"
        assert "server" not in reply.headers
        one.close()
    assert page.headers["cache-control"] == "no-store"
    assert one.get(page.page.media[0]).headers["cache-control"] == "private, max-age=86400"
    assert "<script" not in page.text
    assert not re.search(r"https?://", page.text)


def test_a_part_of_a_video_can_be_asked_for(serving, rater) -> None:
    """Browsers jump in videos with such requests."""
    address, _ = serving()
    one = rater(address)
    media = one.begin().page.media[0]
    whole = one.get(media).body
    part = one.get(media, Range="bytes=2-5")
    assert (part.status, part.body) == (206, whole[2:6])
    known = one.get(media).headers["etag"]
    part = one.get(media, **{"Range": "bytes=2-5", "If-Range": known})
    assert (part.status, part.body) == (206, whole[2:6])


def test_a_file_that_is_gone_or_replaced_is_not_shown(serving, rater, tmp_path, caplog) -> None:
    items = make_items(tmp_path / "own", ("mug",), samples=1)
    address, _ = serving(items=items)
    one = rater(address)
    page = one.begin().page
    shown = dict(zip(one.methods(page), page.media, strict=True))
    files = {method: items / "mug" / method / "0.png" for method in shown}
    kept = files["alpha"].read_bytes()
    files["alpha"].unlink()
    files["beta"].write_bytes(files["gamma"].read_bytes())
    with caplog.at_level(logging.WARNING):
        for method in ("alpha", "beta", "alpha", "beta"):
            reply = one.get(shown[method])
            assert reply.status == 404
            assert "Not found" in reply.text
            assert reply.headers["cache-control"] == "no-store"
            assert str(tmp_path) not in reply.text
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"not shown: {files['alpha']}: cannot be read any more: No such file or directory",
        f"not shown: {files['beta']}: another file than when the study was started",
    ]
    assert all(record.exc_info is None for record in caplog.records)
    assert one.get(shown["gamma"]).status == 200
    files["alpha"].write_bytes(kept)  # brought back
    reply = one.get(shown["alpha"])
    assert (reply.status, reply.body) == (200, kept)


def test_large_requests_are_refused(serving, rater) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin().page
    form = one.fill(page, BEST_FIRST)
    assert one.post(page.action, {**form, "more": "x" * guard.MAX_BODY_BYTES}).status == 413
    assert one.post(page.action, {**form, **{f"f{i}": 1 for i in range(500)}}).status == 400
    one.close()
    path = urlsplit(address).path + "trial/1"
    common = f"POST {path} HTTP/1.1\r\nHost: {one.host}\r\nCookie: {one.cookie}\r\n"
    kind = "Content-Type: application/x-www-form-urlencoded\r\n"
    claim = f"{common}{kind}Content-Length: {2**40}\r\n\r\n".encode()
    assert raw(one.host, claim) == 413
    piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    chunks = f"{common}{kind}Transfer-Encoding: chunked\r\n\r\n".encode() + piece * 2
    assert raw(one.host, chunks) == 413
    assert raw(one.host, f"{common}X: {'x' * 200_000}\r\n\r\n".encode()) in (400, 431)
    assert raw(one.host, f"GET /{'x' * 200_000} HTTP/1.1\r\n\r\n".encode()) in (400, 414)
    assert store.answers(1) == {}
    assert one.post(page.action, form).status == 303  # and the server goes on


def raw(host: str, data: bytes) -> int:
    """The status that bytes are answered with."""
    name, port = host.split(":")
    with socket.create_connection((name, int(port)), timeout=20) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status


def test_a_vote_that_cannot_be_stored_is_told(serving, rater, monkeypatch) -> None:
    address, store = serving()
    one = rater(address)
    page = one.begin()

    def full(*_: object) -> None:
        raise StudyError("the answer could not be stored: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "vote", full)
        reply = one.post(page.page.action, one.fill(page.page, BEST_FIRST))
    assert reply.status == 503
    assert "could not be stored" in reply.text
    assert "2 of 4" in one.answer(page, BEST_FIRST).text


def test_a_question_is_text() -> None:
    made = pages.Pages("rank", "<b>&amp; who?</b>", 2, "/s/x/")
    assert "<b>" not in made.welcome(3, "n")
    assert "&lt;b&gt;&amp;amp; who?&lt;/b&gt;" in made.welcome(3, "n")


def test_votes_of_many_at_once_are_all_there(serving, rater) -> None:
    address, store = serving(samples=5)

    def person(index: int) -> None:
        one = rater(address)
        page = one.begin()
        while page.page.media:
            page = one.answer(
                page, BEST_FIRST if index % 2 else {"alpha": 3, "beta": 2, "gamma": 1}
            )
        one.finish(page)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(person, range(6)))
    found = store.everybody()
    assert [person.finished for person, _ in found] == [True] * 6
    assert sorted(answers[0].points for _, answers in found) == [(1, 2, 3)] * 3 + [(3, 2, 1)] * 3
    assert all(len(answers) == 10 for _, answers in found)
    assert all(a.revision == 0 for _, answers in found for a in answers.values())
