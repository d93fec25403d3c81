"""Objects, links and classes: what their keys mean, and what is wrong with them in words (contract 2)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttjobs.config.entities import expand_ids
from mqttjobs.domain.model import AVAILABILITY, DEFAULT_IGNORE, STATE, EntityKey, EntityKind, Retained, ValueSource
from tests.config.writing import a_link, an_object, good, problems

# -- objects ----------------------------------------------------------------------------------------------------------


def test_an_object_that_says_nothing_has_its_own_topic() -> None:
    settings = good("objects: {lamp: {}, door: }")
    for name in ("lamp", "door"):
        entity = an_object(settings, name)
        assert entity.name == name
        assert entity.sources == {STATE: ValueSource(f"mqttjobs/state/objects/{name}")}
        assert entity.sources[STATE].ignore == {"", "unavailable", "unknown"} == DEFAULT_IGNORE


def test_every_key_of_an_object() -> None:
    settings = good(
        """
        objects:
          hall_motion:
            name: Hall motion
            properties: {battery_type: CR2450, n: 5, deep: {list: [1, on]}}
            state:
              topic: zigbee2mqtt/hall_motion
              value: data.0.occupancy
              map: {true: occupied, "false": clear, 1: one}
              retained: fire
              ignore: [n/a, 5, true]
              event: false
            attributes:
              battery: {value: battery}
              action: {topic: zigbee2mqtt/hall_motion/action, event: true}
              plain: {}
              nothing:
            availability: {topic: zigbee2mqtt/hall_motion/availability, value: state, online: up, offline: down}
        """
    )
    entity = an_object(settings, "hall_motion")
    assert entity.name == "Hall motion"
    assert entity.properties == {"battery_type": "CR2450", "n": 5, "deep": {"list": [1, "on"]}}
    state = entity.sources[STATE]
    assert (state.topic, state.path, state.retained) == (
        "zigbee2mqtt/hall_motion",
        ("data", "0", "occupancy"),
        Retained.FIRE,
    )
    assert state.map == {"true": "occupied", "false": "clear", "1": "one"}
    assert state.ignore == {"n/a", "5", "true"}
    assert entity.sources["battery"] == ValueSource("zigbee2mqtt/hall_motion", ("battery",))
    assert entity.sources["action"] == ValueSource("zigbee2mqtt/hall_motion/action", (), event=True)
    assert entity.sources["plain"].path == ("plain",)
    assert entity.sources["nothing"].path == ("nothing",)
    availability = entity.sources[AVAILABILITY]
    assert (availability.topic, availability.path) == ("zigbee2mqtt/hall_motion/availability", ("state",))
    assert availability.map == {"up": "online", "down": "offline"}


def test_availability_may_be_a_topic_alone() -> None:
    entity = an_object(good("objects: {lamp: {availability: lamp/lwt}}"), "lamp")
    assert entity.sources[AVAILABILITY].topic == "lamp/lwt"


@pytest.mark.parametrize("word", ["unavailable", "unknown", '""', "false"])
def test_availability_hears_its_own_words_even_where_a_state_would_ignore_them(word: str) -> None:
    text = f"objects: {{lamp: {{availability: {{topic: lamp/lwt, online: here, offline: {word}}}}}}}"
    source = an_object(good(text), "lamp").sources[AVAILABILITY]
    assert source.map[word.strip('"')] == "offline"
    assert not source.ignore & {"here", word.strip('"'), "online", "offline"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("objects: {lamp: {topik: x}}", "objects.lamp.topik: unknown key"),
        ("objects: {lamp: {stat: {}}}", "objects.lamp.stat: unknown key; did you mean 'state'?"),
        ("objects: {lamp: {state: {topc: x}}}", "objects.lamp.state.topc: unknown key; did you mean 'topic'?"),
        (
            "objects: {lamp: {attributes: {a: {valu: x}}}}",
            "objects.lamp.attributes.a.valu: unknown key; did you mean 'value'?",
        ),
        ("objects: {lamp: {availability: {topic: x, on: y}}}", "objects.lamp.availability.on: unknown key"),
        ("objects: {lamp: {availability: {value: x}}}", "objects.lamp.availability.topic: is missing"),
        (
            "objects: {lamp: {availability: {topic: x, value: a..b}}}",
            "objects.lamp.availability.value: must be a dotted path",
        ),
        (
            "objects: {lamp: {availability: {topic: x, online: a, offline: a}}}",
            "objects.lamp.availability: online and offline",
        ),
        ("objects: {lamp: {state: {value: a..b}}}", "objects.lamp.state.value: must be a dotted path"),
        ("objects: {lamp: {state: {value: ''}}}", "objects.lamp.state.value: must be a dotted path"),
        (
            "objects: {lamp: {state: {retained: maybe}}}",
            "objects.lamp.state.retained: must be one of 'init', 'fire' or 'ignore'",
        ),
        ("objects: {lamp: {state: {event: yes}}}", "objects.lamp.state.event: must be true or false"),
        (
            "objects: {lamp: {state: {map: {a: [b]}}}}",
            "objects.lamp.state.map.a: must be a text, a number, true or false",
        ),
        ("objects: {lamp: {state: {map: [a]}}}", "objects.lamp.state.map: must be a mapping"),
        ("objects: {lamp: {state: {ignore: unavailable}}}", "objects.lamp.state.ignore: must be a list"),
        ("objects: {lamp: {state: here}}", "objects.lamp.state: must be a mapping"),
        ("objects: {lamp: {name: [a]}}", "objects.lamp.name: must be a text"),
        ("objects: {lamp: {name: 5}}", "objects.lamp.name: must be a text; put it in quotes"),
        ("objects: {lamp: {properties: x}}", "objects.lamp.properties: must be a mapping"),
        ("objects: {lamp: x}", "objects.lamp: must be a mapping"),
        ("objects: [lamp]", "objects: must be a mapping"),
        ("objects: {'a b': {}}", "objects.a b: an id has 1 to 64 letters, digits, _ or -"),
        ("objects: {'': {}}", "an id has 1 to 64 letters"),
        (f"objects: {{{'x' * 65}: {{}}}}", "an id has 1 to 64 letters"),
        (
            "objects: {lamp: {attributes: {'a b': {}}}}",
            "objects.lamp.attributes.a b: a name has 1 to 64 letters",
        ),
        ("objects: {lamp: {class: lamps}}", "objects.lamp.class: there is no class 'lamps'"),
        ("classes: {lamp: {ids: []}}\nobjects: {x: {class: lamps}}", "did you mean 'lamp'?"),
        ("objects: {lamp: {class: [a]}}", "objects.lamp.class: must be a text"),
        ("objects: {lamp: {class: {a: b}}}", "objects.lamp.class: must be a text"),
    ],
)
def test_what_is_wrong_with_an_object(text: str, problem: str) -> None:
    reported = problems(text)
    assert len(reported) == 1, reported
    assert problem in reported[0]


@pytest.mark.parametrize(
    "topic", ["a/+", "'#'", "''", '"a\\0b"', "mqttjobs/status", "mqttjobs/request/jobs/list", "'{{ id }}/x'"]
)
@pytest.mark.parametrize("where", ["state", "attributes.a", "availability"])
def test_a_topic_that_cannot_be_listened_to(topic: str, where: str) -> None:
    first, _, rest = where.partition(".")
    inner = f"{{{rest}: {{topic: {topic}}}}}" if rest else f"{{topic: {topic}}}"
    reported = problems(f"objects:\n  lamp:\n    {first}: {inner}\n")
    assert len(reported) == 1, reported
    assert reported[0].startswith(f"3: objects.lamp.{where}.topic: ")


def test_a_problem_with_the_states_topic_is_reported_once_however_many_attributes_read_it() -> None:
    reported = problems("objects: {lamp: {state: {topic: a/+}, attributes: {a: {}, b: {}}}}")
    assert len(reported) == 1
    assert "objects.lamp.state.topic" in reported[0]


# -- classes ----------------------------------------------------------------------------------------------------------


def test_a_class_has_the_members_of_its_ids_and_one_filter_for_all() -> None:
    settings = good(
        """
        classes:
          conveyor:
            ids: ["line_{001..200}", extra, 7]
            name: Line {{ id }}
            properties: {hall: "2", deep: {own: ["{{id}}"]}}
            state: {topic: "plant/{{ id }}/belt", value: speed}
            attributes: {motor: {topic: "plant/{{ id }}/motor", value: status}}
            availability: "plant/{{ id }}/lwt"
        """
    )
    installation = settings.installation
    assert len(installation.entities) == 202
    line = an_object(settings, "line_007")
    assert (line.name, line.class_id) == ("Line line_007", "conveyor")
    assert line.properties == {"hall": "2", "deep": {"own": ["line_007"]}}
    assert line.sources[STATE] == ValueSource("plant/line_007/belt", ("speed",))
    assert line.sources["motor"].topic == "plant/line_007/motor"
    assert line.sources[AVAILABILITY].topic == "plant/line_007/lwt"
    assert installation.filters() == ["plant/+/belt", "plant/+/motor", "plant/+/lwt"]
    assert installation.classes["conveyor"].ids is not None
    assert len(installation.classes["conveyor"].ids) == 202


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a", ["a"]),
        ("l_{1..3}", ["l_1", "l_2", "l_3"]),
        ("l_{08..11}", ["l_08", "l_09", "l_10", "l_11"]),
        ("{1..2}_{1..2}", ["1_1", "1_2", "2_1", "2_2"]),
        ("x{5..5}y", ["x5y"]),
    ],
)
def test_ranges(text: str, ids: list[str]) -> None:
    assert list(expand_ids(text)) == ids


@given(st.integers(0, 500), st.integers(0, 50), st.integers(1, 6))
def test_a_range_has_every_number_with_its_zeros(first: int, more: int, width: int) -> None:
    made = list(expand_ids(f"l{{{first:0{width}}..{first + more}}}"))
    assert [int(each[1:]) for each in made] == list(range(first, first + more + 1))
    if f"{first:0{width}}".startswith("0"):
        assert {len(each) for each in made} == {1 + max(width, len(str(first + more)))} or len(
            str(first + more)
        ) > width


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ('["l_{3..1}"]', "a range goes from the smaller number to the greater"),
        ('["a b"]', "an id has 1 to 64 letters, digits, _ or -"),
        ('["l_{1..}"]', "an id has 1 to 64 letters"),
        ('["l_{1..999999999999}"]', "ids"),
        ('["{1..9999}{1..9999}{1..9999}"]', "more than"),
        ('["l_{1..' + "9" * 5000 + '}"]', "ids"),
        ("line_1", "must be a list"),
        ("{a: b}", "must be a list"),
        ("[[a]]", "must be a text, a number, true or false"),
    ],
)
def test_what_is_wrong_with_ids_is_reported_at_once(ids: str, problem: str) -> None:
    began = time.thread_time()
    reported = problems(f"classes:\n  line:\n    ids: {ids}\n")
    assert time.thread_time() - began < 5
    assert len(reported) == 1, reported
    assert reported[0].startswith("3: classes.line.ids")
    assert problem in reported[0]


def test_more_members_than_objects_are_allowed_are_refused_before_they_are_made() -> None:
    (reported,) = problems('service: {max_objects: 10}\nclasses:\n  line: {ids: ["l_{1..11}"]}\n')
    assert "service.max_objects" in reported
    assert problems('service: {max_objects: 10}\nclasses:\n  line: {ids: ["l_{1..10}"]}\n') == []
    began = time.thread_time()
    (reported,) = problems('classes:\n  line: {ids: ["l_{1..300000}"]}\n')
    assert "service.max_objects" in reported
    assert time.thread_time() - began < 10


def test_an_id_in_two_classes_is_reported() -> None:
    (reported,) = problems("classes:\n  a: {ids: [x, y]}\n  b: {ids: [y, z]}\n")
    assert reported == "3: classes.b.ids: the id y is a member of the class a already"


def test_an_id_that_is_listed_twice_is_one_member() -> None:
    assert len(good('classes: {a: {ids: [x, x, "x", "x{1..2}", x1]}}').installation.entities) == 3


def test_a_topic_of_a_class_that_only_some_members_may_listen_to_is_reported() -> None:
    (reported,) = problems(
        "classes:\n  a:\n    ids: [home, mqttjobs]\n    state: {topic: '{{ id }}/request/jobs/list'}\n"
    )
    assert reported.startswith("4: classes.a.state.topic: ")
    assert "mqttjobs" in reported


def test_other_variables_than_the_id_cannot_stand_in_a_topic_that_is_listened_to() -> None:
    (reported,) = problems("classes: {a: {ids: [x], state: {topic: 'a/{{ name }}'}}}")
    assert "only {{ id }}" in reported


CONVEYOR = """
classes:
  conveyor:
    ids: [line_1, line_2]
    name: Line {{ id }}
    properties: {hall: "2", maker: ACME}
    state: {topic: "plant/{{ id }}/belt", value: speed}
    attributes: {motor: {value: motor, map: {"1": running}}, belt: {}}
    availability: {topic: "plant/{{ id }}/lwt"}
"""


def test_an_object_takes_over_the_keys_of_its_class_and_its_own_win_key_by_key() -> None:
    settings = good(
        CONVEYOR
        + """
objects:
  line_9:
    class: conveyor
    properties: {hall: "3"}
    state: {value: rpm}
    attributes: {motor: {topic: other/line_9}, more: {}}
  line_2: {name: The second}
  line_8: {class: conveyor}
"""
    )
    nine = an_object(settings, "line_9")
    assert (nine.name, nine.class_id) == ("Line line_9", "conveyor")
    assert nine.properties == {"hall": "3", "maker": "ACME"}
    assert nine.sources[STATE] == ValueSource("plant/line_9/belt", ("rpm",))
    assert nine.sources["motor"] == ValueSource("other/line_9", ("motor",), {"1": "running"})
    assert nine.sources.keys() == {STATE, "motor", "belt", "more", AVAILABILITY}
    two = an_object(settings, "line_2")
    assert (two.name, two.class_id, two.properties) == ("The second", "conveyor", {"hall": "2", "maker": "ACME"})
    assert two.sources == {
        name: ValueSource(each.topic.replace("line_8", "line_2"), each.path, each.map, ignore=each.ignore)
        for name, each in an_object(settings, "line_8").sources.items()
    }


def test_members_that_are_written_as_objects_too_belong_to_their_class_for_its_operations() -> None:
    settings = good(
        CONVEYOR
        + """
objects: {line_9: {class: conveyor}, other: {}}
operations: {stop: {attach: {class: conveyor}, type: mqtt, topic: "plant/{{ id }}/stop"}}
"""
    )
    owners = {key.id for key in settings.installation.owners(settings.installation.operations["stop"])}
    assert owners == {"line_1", "line_2", "line_9"}


# -- links ------------------------------------------------------------------------------------------------------------

TWO = "objects: {motion: {attributes: {battery: {}}}, lamp: {}}\n"


@pytest.mark.parametrize(("state", "follows"), [("", "motion"), ("state: source", "motion"), ("state: target", "lamp")])
def test_a_link_has_the_state_of_its_source_or_its_target(state: str, follows: str) -> None:
    settings = good(f"{TWO}links: {{hall: {{source: motion, target: lamp, {state}}}}}")
    link = a_link(settings, "hall")
    assert (link.source, link.target, link.follows, link.sources) == ("motion", "lamp", follows, {})
    assert settings.installation.followers(EntityKey(EntityKind.OBJECT, follows)) == [link.key]


def test_a_link_can_have_a_state_of_its_own() -> None:
    own_topic = "state: {topic: a/b, value: x}, attributes: {y: {}}"
    link = a_link(good(f"{TWO}links: {{hall: {{source: motion, target: lamp, {own_topic}}}}}"), "hall")
    assert link.follows is None
    assert link.sources == {STATE: ValueSource("a/b", ("x",)), "y": ValueSource("a/b", ("y",))}
    own = a_link(good(f"{TWO}links: {{hall: {{source: motion, target: lamp, state: {{}}}}}}"), "hall")
    assert own.sources == {STATE: ValueSource("mqttjobs/state/links/hall")}


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("{source: motion}", "4: links.hall.target: is missing"),
        ("{source: moton, target: lamp}", "4: links.hall.source: there is no object 'moton'; did you mean 'motion'?"),
        ("{source: motion, target: hall}", "4: links.hall.target: there is no object 'hall'"),
        (
            "{source: motion, target: lamp, state: sorce}",
            "4: links.hall.state: must be one of 'source' or 'target'; did you mean 'source'?",
        ),
        ("{source: motion, target: lamp, state: 5}", "4: links.hall.state: must be one of 'source' or 'target'"),
        ("{source: motion, target: lamp, state: [source]}", "4: links.hall.state: must be one of 'source' or 'target'"),
        (
            "{source: motion, target: lamp, state: {topik: x}}",
            "4: links.hall.state.topik: unknown key; did you mean 'topic'?",
        ),
        ("{source: motion, target: lamp, state: {value: 1.5}}", "4: links.hall.state.value: must be a text"),
        (
            "{source: motion, target: lamp, attributes: {a: {}}}",
            "4: links.hall.attributes: a link whose state is its source's",
        ),
        ("{source: motion, target: lamp, class: x}", "4: links.hall.class: unknown key"),
        ("{source: [motion], target: lamp}", "4: links.hall.source: must be a text"),
    ],
)
def test_what_is_wrong_with_a_link(link: str, problem: str) -> None:
    reported = problems(f"{TWO}\nlinks:\n  hall: {link}\n")
    assert len(reported) == 1, reported
    assert reported[0].startswith(problem)


def test_an_object_and_a_link_may_have_the_same_id() -> None:
    settings = good(f"{TWO}links: {{lamp: {{source: motion, target: lamp}}}}")
    assert an_object(settings, "lamp") is not a_link(settings, "lamp")


# -- events and filters -----------------------------------------------------------------------------------------------


def test_filters_that_would_bring_an_event_twice_are_reported_where_the_event_is() -> None:
    (reported,) = problems(
        """
        classes:
          button: {ids: [a, b], state: {topic: "house/{{ id }}/press", event: true}}
          room: {ids: [press, light], state: {topic: "house/a/{{ id }}"}}
        """
    )
    assert reported.startswith("3: classes.button.state.event: ")
    assert "house/+/press" in reported
    assert "house/a/+" in reported


def test_filters_that_overlap_without_an_event_or_cover_one_another_are_good() -> None:
    assert not problems(
        """
        classes:
          button: {ids: [a, b], state: {topic: "house/{{ id }}/press"}}
          room: {ids: [press, light], state: {topic: "house/a/{{ id }}"}}
          other: {ids: [c, d], state: {topic: "house/{{ id }}/press", event: true}}
        """.replace("house/a", "garden/a")
    )
