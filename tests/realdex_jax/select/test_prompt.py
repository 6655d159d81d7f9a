"""The rubric as a prompt, user data in it, and the reading of replies."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realdex_jax.select import prompt
from realdex_jax.select.scorer import HIGHEST, LOWEST, Task

LABELS = [0, 1, 2]
ASPECTS = dict.fromkeys(prompt.ASPECTS, 3.0)
ENTRY = {"index": 0, "explanation": "Thumb and fingers oppose.", "aspects": ASPECTS, "overall": 4}


def reply(*entries):
    return json.dumps({"scores": list(entries)})


def good():
    return [{**ENTRY, "index": index} for index in LABELS]


def changed(**changes):
    entries = good()
    entries[1] |= changes
    return reply(*entries)


def test_a_good_reply_is_read_in_any_order():
    reading = prompt.read(reply(*reversed(good())), LABELS, "model")
    assert not reading.faults
    assert sorted(reading.scores) == LABELS
    score = reading.scores[2]
    assert (score.value, score.by, dict(score.aspects)) == (4.0, "model", ASPECTS)


@pytest.mark.parametrize("bad", ["4", True, None, -0.1, 5.1, 1e400, 10**400, [4], {"value": 4}])
@pytest.mark.parametrize("where", ["overall", "aspect"])
def test_a_number_that_is_none_costs_its_entry_alone(bad, where):
    aspects = {**ASPECTS, "use": bad} if where == "aspect" else ASPECTS
    text = changed(aspects=aspects, overall=bad if where == "overall" else 4)
    reading = prompt.read(text.replace("Infinity", "1e400"), LABELS, "model")
    assert sorted(reading.scores) == [0, 2]
    assert "picture 1" in reading.faults[0]
    assert "not a number from 0 to 5" in reading.faults[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"explanation": ""}, "no text"),
        ({"explanation": " \x00\u200b"}, "no text"),
        ({"explanation": 3}, "no text"),
        ({"explanation": "x" * (prompt.MAX_EXPLANATION + 1)}, "601 characters; at most 600"),
        ({"aspects": {**ASPECTS, "colour": 1}}, "aspects"),
        ({"aspects": {"use": 1}}, "aspects"),
        ({"aspects": [3] * 6}, "aspects"),
        ({"winner": True}, "its fields are"),
    ],
)
def test_an_entry_of_another_form_costs_itself_alone(changes, why):
    reading = prompt.read(changed(**changes), LABELS, "model")
    assert sorted(reading.scores) == [0, 2]
    assert why in reading.faults[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("I cannot judge these pictures.", "no JSON"),
        (reply(*good())[:-30], "no JSON"),
        ("```json\n" + reply(*good()) + "\n```", "no JSON"),
        ("<html><body>busy</body></html>", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5000, "no JSON"),
        (reply(*good()) + " " * prompt.MAX_REPLY, "at most 100000 are read"),
        ("[1, 2, 3]", "not an object"),
        ("null", "not an object"),
        ('{"scores": [], "best": 1}', "not an object"),
        ('{"scores": {"0": 4}}', "not a list"),
        ('{"scores": [], "scores": []}', "twice in one object"),
        (reply(*good()).replace("4", "NaN"), "NaN is no number"),
        (reply(*good(), {**ENTRY, "index": 3}), "3 is no label of a picture; known: 0, 1, 2"),
        (reply({**ENTRY, "index": 99}), "99 is no label"),
        (reply({**ENTRY, "index": True}), "True is no label"),
        (reply({**ENTRY, "index": 1.0}), "1.0 is no label"),
        (reply({**ENTRY, "index": "1"}), "'1' is no label"),
        (reply({**ENTRY, "index": 10**300}), "a huge number is no label"),
        (reply("4", 4, 4), "None is no label"),
        (reply(*good(), ENTRY), "picture 0 is scored twice"),
    ],
)
def test_a_reply_that_cannot_be_trusted_counts_for_nothing(text, why):
    reading = prompt.read(text, LABELS, "model")
    assert not reading.scores
    assert why in reading.faults[0]
    assert len(reading.faults[0]) < 200


def test_pictures_without_a_score_are_named():
    reading = prompt.read(reply(ENTRY), LABELS, "model")
    assert sorted(reading.scores) == [0]
    assert reading.faults == ("picture 1: no score", "picture 2: no score")


def test_explanations_carry_nothing_that_steers_a_terminal():
    reading = prompt.read(
        changed(explanation="Good\x1b[31m grip.\nOf the \u202ehandle"), [0, 1, 2], "m"
    )
    assert reading.scores[1].explanation == "Good[31m grip. Of the handle"


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 7) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["scores", "index", "explanation", "aspects", "overall", "x"]), inner
        )
    ),
    max_leaves=20,
)
ENTRIES = st.fixed_dictionaries(
    {
        "index": st.integers(-1, 3) | JSONS,
        "explanation": st.text(max_size=20) | JSONS,
        "aspects": st.just(ASPECTS) | JSONS,
        "overall": st.floats(-1, 6) | JSONS,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.text() | JSONS.map(json.dumps) | st.lists(ENTRIES, max_size=4).map(lambda e: reply(*e)))
def test_whatever_is_read_is_valid(text):
    reading = prompt.read(text, LABELS, "model")
    assert set(reading.scores) <= set(LABELS)
    assert bool(reading.faults) == (len(reading.scores) < len(LABELS))
    for score in reading.scores.values():
        assert LOWEST <= score.value <= HIGHEST
        assert set(score.aspects) == set(prompt.ASPECTS)
        assert all(LOWEST <= v <= HIGHEST for v in score.aspects.values())
        assert score.explanation.isprintable()
        assert 0 < len(score.explanation) <= prompt.MAX_EXPLANATION


def test_the_schema_asks_for_what_is_read():
    schema = prompt.schema([4, 5])
    entry = schema["properties"]["scores"]["items"]
    assert entry["required"] == list(ENTRY)
    assert list(entry["properties"]) == list(ENTRY)
    assert entry["properties"]["aspects"]["required"] == list(prompt.ASPECTS)
    assert entry["properties"]["overall"] == {"type": "number", "minimum": 0.0, "maximum": 5.0}
    assert schema["properties"]["scores"]["minItems"] == 2
    for name, question in prompt.ASPECTS.items():
        assert f"- {name}: {question}" in prompt.instruction()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=1000), st.text(max_size=1000))
def test_user_data_stay_one_line_each_between_their_fences(name, wish):
    lines = prompt.question(Task(name, wish), [7]).split("\n")
    assert len(lines) == 5
    assert (lines[0], lines[3], lines[4]) == (*prompt.FENCE, "Score the pictures labelled 7.")
    for line, start, limit in ((lines[1], "object: ", 80), (lines[2], "wish: ", 300)):
        assert line.startswith(start)
        assert line.isprintable()
        inside = json.loads(line[len(start) :])
        assert len(inside) <= limit
        assert not set(inside) & set('"\\`<>{}')


def test_data_are_what_the_user_meant():
    text = prompt.question(Task("Kaffeetasse \u8336\u676f", "hand it over,\nhandle first"), [0, 1])
    assert 'object: "Kaffeetasse \u8336\u676f"' in text
    assert 'wish: "hand it over, handle first"' in text


def test_the_fingerprint_is_of_the_task_alone():
    mug = prompt.fingerprint(Task("mug", "drink"))
    assert mug == prompt.fingerprint(Task("mug", "drink"))
    assert (
        len({mug, prompt.fingerprint(Task("mug")), prompt.fingerprint(Task("cup", "drink"))}) == 3
    )
