"""The sections mqtt, store, service and users, and a configuration as a whole (contract 2)."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from mqttjobs.config import load, summary
from mqttjobs.errors import ConfigError
from mqttjobs.service.settings import ServiceSettings, host_time_zone
from mqttjobs.store.base import Retention, create_store
from mqttjobs.transport.base import Tls
from tests.config.writing import good, problems, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["config/mqttjobs.yaml", "config/demo.yaml", "mqttjobs/cli/demo.yaml"])
def test_the_examples_are_good_as_they_are(name: str) -> None:
    settings = load(ROOT / name, environ={})
    assert dict(summary(settings))["operations"] == len(settings.installation.operations) > 4


def test_the_two_copies_of_the_demo_are_one() -> None:
    assert (ROOT / "config/demo.yaml").read_text() == (ROOT / "mqttjobs/cli/demo.yaml").read_text()


@pytest.mark.parametrize("text", ["", "# nothing\n", "mqtt:\nservice:\nobjects:\n", "{}"])
def test_an_empty_configuration_has_every_default(text: str) -> None:
    settings = good(text)
    connect = settings.connect
    assert (connect.url, connect.client_id, connect.protocol) == ("mqtt://127.0.0.1:1883", "mqttjobs", "auto")
    assert (connect.username, connect.password, connect.tls) == (None, None, Tls())
    assert connect.session_expiry == timedelta(days=1)
    assert (settings.base_topic, settings.mqtt.reply_topics, settings.mqtt.trust_user_lanes) == ("mqttjobs", (), False)
    assert settings.store.url.startswith("sqlite:////")
    assert settings.store.url.endswith("/mqttjobs.db")
    assert settings.store.retention == Retention(
        completed=timedelta(days=30),
        failed=timedelta(days=180),
        max_jobs=1_000_000,
        history=timedelta(days=30),
        history_per_value=1000,
    )
    service = settings.service
    assert service == ServiceSettings(hostname=service.hostname, time_zone=service.time_zone)
    assert (service.concurrency, service.timeout, service.grace) == (32, timedelta(seconds=60), timedelta(seconds=5))
    assert (service.poll_window, service.max_payload, service.max_objects) == (timedelta(seconds=2), 65_536, 100_000)
    assert (service.system_user, service.inline_operations, service.program_dirs) == ("system", ("mqtt",), ())
    assert service.hostname
    assert settings.installation.users == {}


def test_every_key_of_the_sections() -> None:
    settings = good(
        """
        mqtt:
          url: mqtts://ada:s3cret@broker.example:8883
          username: ada
          password: "12345"
          client_id: hub
          session_expiry: 2d
          protocol: 5
          base_topic: home/jobs
          tls: {ca_file: certs/ca.pem, cert_file: /etc/cert.pem, key_file: certs/key.pem, insecure: true}
          reply_topics: [answers/#, "tools/+/inbox"]
          trust_user_lanes: true
        store:
          url: sqlite:///data/jobs.db
          retention: {completed: 1d, failed: 2d, max_jobs: 10, history: 3d, history_per_value: 4}
        service:
          hostname: hub-1.local
          concurrency: 4
          poll_window: 500ms
          timeout: 10
          grace: 1s
          system_user: robot
          program_dirs: [bin, /usr/local/bin]
          inline_operations: [mqtt, script]
          event_qos: 1
          max_payload: 128KiB
          max_objects: 5
          time_zone: America/New_York
          latitude: 52
          longitude: -13.4
        """
    )
    folder = Path(settings.config_dir)
    connect = settings.connect
    assert connect.url == "mqtts://ada:s3cret@broker.example:8883"
    assert (connect.username, connect.password, connect.protocol) == ("ada", "12345", "5")
    assert connect.tls == Tls(str(folder / "certs/ca.pem"), "/etc/cert.pem", str(folder / "certs/key.pem"), True)  # noqa: FBT003
    assert settings.mqtt.reply_topics == ("answers/#", "tools/+/inbox")
    assert settings.store.url == f"sqlite:///{folder / 'data/jobs.db'}"
    assert settings.service.program_dirs == (str(folder / "bin"), "/usr/local/bin")
    assert settings.service.time_zone == "America/New_York"
    assert (settings.service.latitude, settings.service.longitude) == (52.0, -13.4)
    assert settings.service.timeout == timedelta(seconds=10)


def test_relative_paths_start_at_the_configuration_and_not_where_it_is_read_from(tmp_path: Path) -> None:
    path = write("store: {url: sqlite:///jobs.db}")
    before = Path.cwd()
    os.chdir(path.parent.parent)
    try:
        settings = load(Path(path.parent.name) / path.name, environ={})
    finally:
        os.chdir(before)
    assert settings.store.url == f"sqlite:///{path.parent / 'jobs.db'}"
    assert good("store: {url: 'sqlite:////var/lib/x.db'}").store.url == "sqlite:////var/lib/x.db"
    assert good("store: {url: 'memory:'}").store.url == "memory:"


@pytest.mark.parametrize("name", ["100%25 done", "what?", "no#1", "Küche und Bad", "a&b=c;d"])
async def test_the_database_is_beside_the_configuration_whatever_the_folder_is_called(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "home.yaml").write_text("store: {url: sqlite:///jobs.db}")
    store = create_store(load(folder / "home.yaml", environ={}).store.url)
    await store.open()
    await store.close()
    assert (folder / "jobs.db").is_file()


def test_a_section_with_something_else_wrong_still_has_its_url_checked() -> None:
    found = problems("mqtt: {url: x, client_id: ''}\nstore: {url: x, retention: 30d}")
    assert [each.partition(": must")[0] for each in found] == [
        "1: mqtt.client_id",
        "1: mqtt.url",
        "2: store.retention",
        "2: store.url",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "mqtt: {url: http://x}",
            "mqtt.url: must be like mqtt://host:1883; the known schemes are memory, mqtt, mqtts, ws, wss",
        ),
        ("mqtt: {url: broker}", "mqtt.url: must be like mqtt://host:1883"),
        ("mqtt: {url: 'mqtt://'}", "mqtt.url: must be like mqtt://host:1883"),
        ("mqtt: {url: 'mqtt://h:99999'}", "mqtt.url: must be like mqtt://host:1883"),
        ("mqtt: {url: 'mqtt://h:0'}", "mqtt.url: must be like mqtt://host:1883"),
        ("mqtt: {url: 'mqtt://[::1'}", "mqtt.url: must be like mqtt://host:1883"),
        ("mqtt: {url: 'mqtt://a b:1'}", "mqtt.url: must be like mqtt://host:1883"),
        ("mqtt: {url: 'memory:'}", "mqtt.url: must be like memory://name"),
        ("mqtt: {url: memory://hub, protocol: 5}", "mqtt.protocol: has no use with memory: URLs; leave it out"),
        ("mqtt: {url: memory://hub, tls: {insecure: true}}", "mqtt.tls: has no use with memory: URLs; leave it out"),
        ("mqtt: {password: 12345}", "mqtt.password: must be a text; put it in quotes"),
        ("mqtt: {protocol: 4}", "mqtt.protocol: must be one of 'auto', '5' or '3.1.1'"),
        ("mqtt: {client_id: ''}", "mqtt.client_id: must not be empty"),
        ("mqtt: {base_topic: 'a/#'}", "mqtt.base_topic: a topic has no wildcards"),
        ("mqtt: {base_topic: $SYS}", "mqtt.base_topic: must be a plain topic"),
        ("mqtt: {base_topic: a/}", "mqtt.base_topic: must be a plain topic"),
        ("mqtt: {reply_topics: ['a#']}", "mqtt.reply_topics: # stands alone and last"),
        ("mqtt: {reply_topics: a}", "mqtt.reply_topics: must be a list"),
        ("mqtt: {tls: true}", "mqtt.tls: must be a mapping"),
        ("mqtt: {tls: {cafile: x}}", "mqtt.tls.cafile: unknown key; did you mean 'ca_file'?"),
        ("mqtt: {trust_user_lanes: yes}", "mqtt.trust_user_lanes: must be true or false"),
        ("mqtt: {usrname: x}", "mqtt.usrname: unknown key; did you mean 'username'?"),
        ("mqtt: {session_expiry: never}", "mqtt.session_expiry: a duration is"),
        ("mqtt: [x]", "mqtt: must be a mapping"),
        (
            "store: {url: postgresql://x}",
            "store.url: must be like sqlite:///mqttjobs.db; the known schemes are memory, sqlite",
        ),
        ("store: {url: 'sqlite:///'}", "store.url: must be like sqlite:///mqttjobs.db"),
        ("store: {url: 'sqlite://host/jobs.db'}", "store.url: must be like sqlite:///mqttjobs.db"),
        ("store: {url: 'sqlite:jobs.db'}", "store.url: must be like sqlite:///mqttjobs.db"),
        ("store: {url: 5}", "store.url: must be a text; put it in quotes"),
        ("store: {retention: 30d}", "store.retention: must be a mapping"),
        ("store: {retention: {max_jobs: 0}}", "store.retention.max_jobs: must be at least 1"),
        ("store: {retention: {complete: 1d}}", "store.retention.complete: unknown key; did you mean 'completed'?"),
        ("service: {concurrency: 0}", "service.concurrency: must be at least 1"),
        ("service: {concurrency: many}", "service.concurrency: must be a whole number"),
        ("service: {concurrency: '4'}", "service.concurrency: must be a whole number"),
        ("service: {hostname: a b}", "service.hostname: must have 1 to 64 letters, digits, _, . or -"),
        ("service: {system_user: ''}", "service.system_user: must have 1 to 64 letters, digits, _ or -"),
        ("service: {timeout: 0}", "service.timeout: must be more than nothing"),
        ("service: {timeout: true}", "service.timeout: a duration is"),
        ("service: {timeout: [1]}", "service.timeout: a duration is"),
        ("service: {grace: -1}", "service.grace: a duration is"),
        ("service: {max_payload: 64 kilobytes}", "service.max_payload: a size is"),
        ("service: {max_payload: 1.5}", "service.max_payload: a size is"),
        ("service: {max_payload: 2MiB}", "service.max_payload: must be at most 1048576"),
        ("service: {event_qos: 2}", "service.event_qos: must be one of 0 or 1"),
        ("service: {inline_operations: [mqt]}", "service.inline_operations.0: must be one of mqtt, program, script"),
        ("service: {inline_operations: mqtt}", "service.inline_operations: must be a list"),
        ("service: {time_zone: Berlin}", "service.time_zone: is no time zone; write it like Europe/Berlin"),
        ("service: {time_zone: ../../etc/passwd}", "service.time_zone: is no time zone"),
        ("service: {time_zone: ''}", "service.time_zone: is no time zone"),
        ("service: {latitude: 91}", "service.latitude: must be at most 90"),
        ("service: {longitude: east}", "service.longitude: must be a number"),
        ("sevice: {}", "sevice: unknown section; did you mean 'service'?"),
        ("object: {}", "object: unknown section; did you mean 'objects'?"),
    ],
)
def test_what_is_wrong_with_a_section(text: str, problem: str) -> None:
    found = problems(f"# the first line\n{text}\n")
    assert len(found) == 1, found
    assert found[0].startswith(f"2: {problem}")


@pytest.mark.parametrize("text", ["- a\n", "text", "5", "[objects]"])
def test_a_configuration_is_a_mapping(text: str) -> None:
    assert problems(text) == ["1: a configuration is a mapping with sections such as objects"]


def test_a_file_that_is_not_there_or_cannot_be_read_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(ConfigError) as caught:
            load(path, environ={})
        assert [each.line for each in caught.value.problems] == [0]
        assert "cannot be read" in str(caught.value)


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        """
mqtt:
  url: x
service:
  concurrency: 0
  timeout: soon
users:
  bob: {api_key: short, permissions: [job:reed]}
objects:
  lamp: {state: {topic: a/+}}
  lamp: {}
links:
  hall: {source: lamp, target: door}
operations:
  op:
    attach:
      object: lampp
    type: mqtt
    topic: "{{ a b }}"
    triggers:
      - states: [on]
      - stats: [off]
sevice: {}
"""
    )
    assert [int(each.partition(":")[0]) for each in found] == [3, 5, 6, 8, 10, 11, 13, 17, 19, 22, 23]
    assert len({each.partition(": ")[2] for each in found}) == len(found)


def test_the_summary_counts_everything() -> None:
    settings = good(
        """
        users: {a: {}}
        classes: {room: {ids: [r1, r2], state: {topic: "x/{{ id }}"}}}
        objects: {lamp: {}}
        links: {l: {source: lamp, target: r1}}
        operations: {op: {type: mqtt, topic: a, attach: {class: room}, trigger_states: [on], schedule: {every: 5m}}}
        """
    )
    assert dict(summary(settings)) == {
        "objects": 3,
        "links": 1,
        "classes": 1,
        "operations": 1,
        "triggers": 1,
        "schedules": 1,
        "users": 1,
        "subscriptions": 2,
    }


def test_the_time_zone_of_the_host_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert host_time_zone() == "Europe/Berlin"
    monkeypatch.setenv("TZ", ":America/New_York")
    assert host_time_zone() == "America/New_York"
    monkeypatch.setenv("TZ", "nonsense/zone")
    assert host_time_zone()
    monkeypatch.delenv("TZ")
    assert host_time_zone()


# -- users ------------------------------------------------------------------------------------------------------------

USERS = "objects: {lamp: {}, door: {}}\nlinks: {hall: {source: lamp, target: door}}\nusers:\n"


@pytest.mark.parametrize(
    ("scope", "objects", "links"),
    [
        ("", None, None),
        ("objects: [lamp]", {"lamp"}, set()),
        ("links: [hall]", set(), {"hall"}),
        ("objects: [], links: []", set(), set()),
        ("objects: [lamp, door], links: [hall]", {"lamp", "door"}, {"hall"}),
    ],
)
def test_the_scope_of_a_user(scope: str, objects: set[str] | None, links: set[str] | None) -> None:
    user = good(f"{USERS}  bob: {{permissions: [job:read], {scope}}}").installation.users["bob"]
    assert (user.objects, user.links) == (objects, links)
    assert user.may("job:read")
    assert not user.may("job:write")


def test_every_key_of_a_user() -> None:
    user = good(
        f"""{USERS}  alice:
    api_key: 0123456789abcdef
    permissions: [admin]
    display_name: Alice
    email: alice@example.org
    role: operator
"""
    ).installation.users["alice"]
    assert (user.api_key, user.display_name, user.email, user.role) == (
        "0123456789abcdef",
        "Alice",
        "alice@example.org",
        "operator",
    )
    assert user.may("anything:at-all")
    assert "0123456789abcdef" not in repr(user)


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("{api_key: short}", "users.bob.api_key: must have at least 16 characters"),
        ("{api_key: 1234567890123456}", "users.bob.api_key: must be a text; put it in quotes"),
        ("{permissions: [job:reed]}", "users.bob.permissions.0: must be one of admin, job:read, "),
        ("{permissions: job:read}", "users.bob.permissions: must be a list"),
        ("{objects: [lampp]}", "users.bob.objects.0: there is no object 'lampp'; did you mean 'lamp'?"),
        ("{links: [lamp]}", "users.bob.links.0: there is no link 'lamp'"),
        ("{objects: lamp}", "users.bob.objects: must be a list"),
        ("{apikey: 0123456789abcdef}", "users.bob.apikey: unknown key; did you mean 'api_key'?"),
        ("x", "users.bob: must be a mapping"),
    ],
)
def test_what_is_wrong_with_a_user(user: str, problem: str) -> None:
    found = problems(f"{USERS}  bob: {user}")
    assert len(found) == 1, found
    assert found[0].startswith(f"4: {problem}")


def test_two_users_with_one_key_are_reported_without_telling_the_key() -> None:
    (problem,) = problems(f"{USERS}  a: {{api_key: 0123456789abcdef}}\n  b: {{api_key: 0123456789abcdef}}\n")
    assert problem == "5: users.b.api_key: is the key of a too; give each its own"


def test_a_short_secret_of_agents_is_a_warning_that_does_not_tell_it() -> None:
    (warning,) = good("agents: {key: hunter2}").warnings
    assert str(warning).endswith(
        "home.yaml:1: warning: agents.key: has less than 16 characters; "
        "whoever guesses it can run programs on every agent"
    )
    assert good("agents: {key: 0123456789abcdefg}").warnings == ()
