"""Every method, with every permission, in the caller's scope and outside of it (contract 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from mqttjobs.domain.users import PERMISSIONS
from mqttjobs.service.api.request import methods
from tests.service.fake_agents import AGENTS, FakeAgent
from tests.service.harness import ServiceHarness, a_link, an_object, an_operation

Build = Callable[..., ServiceHarness]
Params = dict[str, Any]
UNKNOWN_JOB = "00000000-0000-7000-8000-999999999999"


@dataclass(frozen=True)
class Row:
    """One method: the permissions of which one is enough, and how to ask it.

    `ask`: its parameters; `$job`, `$object`, `$link` and `$operation` stand for what the question is about. `about`:
    which of them decides whether it is in scope, None where the method has no scope.
    """

    permissions: tuple[str, ...]
    ask: Params = field(default_factory=dict)
    about: str | None = None


EITHER = ("operation:read", "operation:execute")
TABLE: Mapping[str, Row] = {
    "jobs/list": Row(("job:read",)),
    "jobs/get": Row(("job:read",), {"id": "$job"}, "$job"),
    "jobs/create": Row(
        ("operation:manage",), {"operation": {"type": "mqtt", "topic": "t"}, "object": "$object"}, "$object"
    ),
    "jobs/send": Row(("operation:execute",), {"object": "$object", "method_name": "$operation"}, "$object"),
    "jobs/poll": Row(("job:read",), {"id": "$job"}, "$job"),
    "jobs/add_result": Row(("job:write",), {"id": "$job", "payload": {"a": 1}}, "$job"),
    "jobs/progress": Row(("job:write",), {"id": "$job", "message": "half way"}, "$job"),
    "jobs/retry": Row(("job:write",), {"id": "$job"}, "$job"),
    "jobs/stop": Row(("job:write",), {"id": "$job"}, "$job"),
    "jobs/delete": Row(("job:write",), {"id": "$job"}, "$job"),
    "operations/list": Row(EITHER),
    "operations/get": Row(EITHER, {"id": "$operation"}, "$operation"),
    "operations/execute": Row(("operation:execute",), {"id": "$operation"}, "$operation"),
    "operations/explain": Row(("operation:read",), {"id": "$operation"}, "$operation"),
    "operations/simulate": Row(("operation:read",), {"reports": []}),
    "operations/activate": Row(("operation:manage",), {"id": "$operation"}, "$operation"),
    "operations/deactivate": Row(("operation:manage",), {"id": "$operation"}, "$operation"),
    "objects/list": Row(("job:read",)),
    "objects/get": Row(("job:read",), {"id": "$object"}, "$object"),
    "links/list": Row(("job:read",)),
    "links/get": Row(("job:read",), {"id": "$link"}, "$link"),
    "states/history": Row(("job:read",), {"object": "$object"}, "$object"),
    "states/set": Row(("job:write",), {"object": "$object", "state": "on"}, "$object"),
    "agents/list": Row(("agent:read",)),
    "agents/get": Row(("agent:read",), {"hostname": "edge"}),
    "agents/drain": Row(("agent:write",), {"hostname": "edge"}),
    "agents/undrain": Row(("agent:write",), {"hostname": "edge"}),
    "service/info": Row(()),
    "service/health": Row(()),
    "config/reload": Row(("config:write",)),
}
"""The table of methods as the contract has it."""


def key_of(name: str) -> str:
    return f"only-{name}-has-this-key"


def a_user(*permissions: str, name: str, **more: Any) -> Params:
    return {"api_key": key_of(name), "permissions": list(permissions), **more}


SCOPE = {"objects": ["lamp"], "links": ["cable"]}
USERS = {
    "root": a_user("admin", name="root"),
    "nothing": a_user(name="nothing", **SCOPE),
    **{name.replace(":", "_"): a_user(name, name=name.replace(":", "_"), **SCOPE) for name in PERMISSIONS},
}
SHOP = {
    "users": USERS,
    "agents": AGENTS,
    "objects": {"lamp": an_object("lamp"), "door": an_object("door")},
    "links": {"cable": a_link("lamp", "door"), "wire": a_link("door", "lamp")},
    "operations": {
        "dig": an_operation("lamp", type="work", description="Digs"),
        "hide": an_operation("door", type="work"),
        "tell": an_operation("lamp", message="{{ payload }}", triggers=[{}]),
        "both": an_operation(attach=None, type="work") | {"attach": [{"object": "lamp"}, {"object": "door"}]},
    },
}
INSIDE = {"$object": "lamp", "$link": "cable", "$operation": "dig"}
OUTSIDE = {"$object": "door", "$link": "wire", "$operation": "hide"}
NOWHERE = {"$object": "nowhere", "$link": "nowhere", "$operation": "nowhere", "$job": UNKNOWN_JOB}


def filled(params: Params, what: Mapping[str, str]) -> Params:
    return {name: what.get(value, value) if isinstance(value, str) else value for name, value in params.items()}


def permissions_of(user: str) -> frozenset[str]:
    held = frozenset(USERS[user]["permissions"])
    return frozenset(PERMISSIONS) if "admin" in held else held


async def as_user(harness: ServiceHarness, user: str, method: str, **params: Any) -> Any:
    return await harness.ask(method, **params, api_key=key_of(user))


async def a_job_of(harness: ServiceHarness, operation: str) -> str:
    answer = await as_user(harness, "root", "operations/execute", id=operation)
    return str(answer["data"]["id"])


@pytest.fixture
async def shop(build: Build) -> ServiceHarness:
    harness = await build(**SHOP).start()
    await FakeAgent(harness, "edge").status()
    return harness


def test_the_table_has_every_method_there_is() -> None:
    assert set(methods()) <= TABLE.keys()


@pytest.mark.proves("listing", "403 insufficient permissions")
@pytest.mark.proves("common", "every method checks its permission")
@pytest.mark.parametrize("user", [name for name in USERS if name != "root"])
async def test_a_method_needs_one_of_its_permissions_and_an_owner_in_scope(shop: ServiceHarness, user: str) -> None:
    for method in methods():
        row = TABLE[method]
        allowed = not row.permissions or bool(permissions_of(user) & set(row.permissions))
        inside = INSIDE | {"$job": await a_job_of(shop, "dig")}
        answer = await as_user(shop, user, method, **filled(row.ask, inside))
        if not allowed:
            assert (answer["code"], answer["reason"], answer["error"]) == (403, "forbidden", "Forbidden."), method
            assert answer["details"] == f"missing permission: {' or '.join(row.permissions)}"
        else:
            assert answer["status"] == "ok", (method, answer)
            await as_user(shop, "root", "operations/activate", id="dig")


@pytest.mark.proves("listing", "404 job not found")
@pytest.mark.parametrize("user", [name for name in USERS if name != "root"])
async def test_what_is_outside_the_scope_looks_like_what_is_not_there(shop: ServiceHarness, user: str) -> None:
    for method in methods():
        row = TABLE[method]
        if row.about is None:
            continue
        outside = OUTSIDE | {"$job": await a_job_of(shop, "hide")}
        answer = await as_user(shop, user, method, **filled(row.ask, outside))
        unknown = await as_user(shop, user, method, **filled(row.ask, NOWHERE))
        name = outside[row.about]
        if permissions_of(user) & set(row.permissions):
            assert (answer["code"], answer["reason"]) == (404, "not_found"), (method, answer)
        else:
            assert (answer["code"], answer["reason"]) == (403, "forbidden"), (method, answer)
        assert json.dumps(answer).replace(name, NOWHERE[row.about]) == json.dumps(unknown), method
        job = await as_user(shop, "root", "jobs/get", id=outside["$job"])
        assert job["data"]["status"] == "processing"
        assert (job["data"]["results"], [each["event"] for each in job["data"]["timeline"]]) == (
            [], ["submitted", "acknowledged", "started"],
        )  # fmt: skip


@pytest.mark.proves("listing", "total_items")
async def test_lists_counts_and_totals_have_what_is_in_scope_and_nothing_else(shop: ServiceHarness) -> None:
    inside = [await a_job_of(shop, "dig") for _ in range(3)]
    await as_user(shop, "root", "jobs/stop", id=inside[0])
    secret_templates = [await a_job_of(shop, "hide") for _ in range(4)]
    await as_user(shop, "root", "jobs/stop", id=secret_templates[0])
    inline = {"type": "mqtt", "topic": "t"}
    nobodys = (await as_user(shop, "root", "jobs/create", operation=inline))["data"]["id"]
    mine = (await as_user(shop, "admin", "jobs/create", operation=inline))["data"]["id"]
    listed = (await as_user(shop, "admin", "jobs/list"))["data"]
    assert [each["id"] for each in listed["items"]] == [mine, *inside[::-1]]
    assert listed["total_items"] == 4
    counted = {name: count for name, count in listed["status_counts"].items() if count}
    assert counted == {"completed": 1, "processing": 2, "stopped": 1}
    for filters in ({"object": "door"}, {"link": "wire"}, {"operation_id": "hide"}, {"object": "nowhere"}):
        empty = (await as_user(shop, "admin", "jobs/list", **filters))["data"]
        assert (empty["total_items"], empty["items"]) == (0, [])
        assert empty["status_counts"] == listed["status_counts"]
    assert (await as_user(shop, "admin", "jobs/get", id=nobodys))["code"] == 404
    assert (await as_user(shop, "root", "jobs/list"))["data"]["total_items"] == 9
    for noun, seen in (("objects", ["lamp"]), ("links", ["cable"]), ("operations", ["dig", "tell", "both"])):
        page = (await as_user(shop, "admin", f"{noun}/list"))["data"]
        assert (page["total_items"], [each["id"] for each in page["items"]]) == (len(seen), seen)


async def test_an_operation_of_several_tells_of_those_in_scope_alone(shop: ServiceHarness) -> None:
    for owner, times in (("lamp", 2), ("door", 3)):
        for _ in range(times):
            await as_user(shop, "root", "operations/execute", id="both", object=owner)
    seen = (await as_user(shop, "admin", "operations/get", id="both"))["data"]
    assert (seen["job_instances"]["total"], seen["job_instances"]["running"]) == (2, 2)
    assert len(seen["job_instances"]["last_ids"]) == 2
    assert seen["attach"] == [{"object": "lamp"}]
    whole = (await as_user(shop, "root", "operations/get", id="both"))["data"]
    assert (whole["job_instances"]["total"], whole["attach"]) == (5, [{"object": "lamp"}, {"object": "door"}])
    job = (await as_user(shop, "admin", "jobs/list", operation_id="both", limit=1))["data"]["items"][0]
    assert job["operation"]["attach"] == [{"object": "lamp"}]
    by_hand = await as_user(shop, "operation_execute", "operations/execute", id="both")
    assert by_hand["code"] == 201


async def test_who_may_run_operations_and_not_read_them_sees_three_fields(shop: ServiceHarness) -> None:
    three = {"id": "dig", "name": "dig", "description": "Digs"}
    listed = (await as_user(shop, "operation_execute", "operations/list"))["data"]
    assert listed["items"][0] == three
    assert all(set(each) == {"id", "name", "description"} for each in listed["items"])
    assert (await as_user(shop, "operation_execute", "operations/get", id="dig"))["data"] == three
    question = shop.put("operations/execute", id="dig", wait=True, api_key=key_of("operation_execute"))
    await shop.settle()
    shop.fake_jobs.going[-1].complete({"depth": 1})
    await shop.settle()
    assert question.answer["code"] == 200
    assert question.answer["data"]["result"] == {"depth": 1}
    assert question.answer["data"]["operation"] == three
    assert "type" in (await as_user(shop, "operation_read", "operations/get", id="dig"))["data"]


@pytest.mark.proves("listing", "401 API key required")
@pytest.mark.parametrize("api_key", ["wrong", "", None, 5, key_of("root")[:-1], key_of("root") + "x"])
async def test_without_a_valid_key_the_answer_is_401_whatever_is_asked(shop: ServiceHarness, api_key: Any) -> None:
    for method, params in (("jobs/list", {"limit": 0}), ("no/method", {}), ("jobs/get", {"id": UNKNOWN_JOB})):
        answer = await shop.ask(method, **params, transaction="t", **({} if api_key is None else {"api_key": api_key}))
        reported = answer.pop("details")
        assert answer == {
            "status": "error", "code": 401, "error": "API key required", "reason": "unauthorized", "retryable": False,
            "transaction": "t",
        }  # fmt: skip
        assert str(api_key or "has-this-key") not in reported
        await shop.advance(1)


async def test_a_key_may_come_as_a_user_property_and_speaks_in_its_own_lane_alone(shop: ServiceHarness) -> None:
    async def asked(question: Any) -> Any:
        await shop.settle()
        return question.answer["code"]

    mine, properties = key_of("job_read"), [("api_key", key_of("job_read"))]
    assert await asked(shop.put("jobs/list", user_properties=properties)) == 200
    assert await asked(shop.put("jobs/list", user_properties=properties, lane="job_read")) == 200
    assert await asked(shop.put("jobs/list", api_key=mine, lane="job_read")) == 200
    assert await asked(shop.put("jobs/list", api_key=mine, lane="root")) == 401
    assert await asked(shop.put("jobs/list", lane="job_read")) == 401
    assert await asked(shop.put("jobs/list", api_key="wrong", user_properties=properties)) == 401


async def test_a_trusted_lane_speaks_for_its_user_without_a_key(build: Build) -> None:
    users = {**USERS, "keyless": {"permissions": ["job:read"]}}
    harness = await build(**SHOP | {"users": users}, mqtt={"trust_user_lanes": True}).start()

    async def asked(method: str, lane: str | None, **params: Any) -> Any:
        question = harness.put(method, lane=lane, **params)
        await harness.settle()
        return question.answer["code"]

    assert await asked("jobs/list", "keyless") == 200
    assert await asked("jobs/stop", "keyless", id=1) == 403
    assert await asked("jobs/list", "nobody") == 401
    assert await asked("jobs/list", "job_read", api_key=key_of("root")) == 401
    assert await asked("jobs/list", None) == 401


async def test_anonymous_may_do_what_is_configured_for_it(build: Build) -> None:
    users = {**USERS, "anonymous": {"permissions": ["job:read"], "objects": ["lamp"]}}
    harness = await build(**SHOP | {"users": users}).start()
    assert (await harness.ask("jobs/list"))["code"] == 200
    assert (await harness.ask("objects/list"))["data"]["total_items"] == 1
    assert (await harness.ask("links/list"))["data"]["total_items"] == 0
    assert (await harness.ask("jobs/stop", id=1))["code"] == 403
    assert (await harness.ask("jobs/list", api_key="wrong"))["code"] == 401


async def test_without_any_users_anonymous_may_read_and_run_and_no_more(build: Build) -> None:
    harness = await build(**{name: part for name, part in SHOP.items() if name != "users"}).start()
    allowed = {"job:read", "job:write", "operation:read", "operation:execute", "agent:read"}
    for method in methods():
        row = TABLE[method]
        job = (await harness.data("operations/execute", id="hide"))["id"]
        answer = await harness.ask(method, **filled(row.ask, OUTSIDE | {"$job": job}))
        if not row.permissions or allowed & set(row.permissions):
            assert answer["status"] == "ok" or (method, answer["code"]) == ("agents/get", 404), answer
        else:
            assert (answer["code"], answer["reason"]) == (403, "forbidden"), method


async def test_refusals_beyond_twenty_a_second_are_dropped_and_good_keys_are_not(shop: ServiceHarness) -> None:
    questions = [shop.put("jobs/list", n=number) for number in range(100)]
    good = shop.put("jobs/list", api_key=key_of("root"))
    await shop.settle()
    assert sum(len(each.answers) for each in questions) == 20
    assert good.answer["code"] == 200
    await shop.advance(1)
    questions = [shop.put("jobs/list", n=number) for number in range(100)]
    await shop.settle()
    assert sum(len(each.answers) for each in questions) == 20
    health = await as_user(shop, "root", "service/health")
    assert health["data"]["counters"]["requests_by_result"]["401_dropped"] == 160


@pytest.mark.proves("common", "a key is in no record, event or log")
async def test_a_key_is_in_nothing_that_is_kept_or_reported(
    shop: ServiceHarness, capfd: pytest.CaptureFixture[str]
) -> None:
    """The key comes with every method, beside what is kept of it, and in a state's payload by mistake."""
    key = key_of("admin")
    for method in methods():
        row = TABLE[method]
        job = await a_job_of(shop, "dig")
        ask = filled(row.ask, INSIDE | {"$job": job})
        question = shop.put(method, **ask, api_key=key, transaction=f"t-{method}")
        await shop.settle()
        assert question.answers
        await as_user(shop, "root", "operations/activate", id="dig")
    body = json.dumps({"api_key": key, "id": 5, "nonsense": True})
    shop.send(f"{shop.base}/request/jobs/get", body)
    shop.send(f"{shop.base}/request/jobs/get", body, retain=True)
    shop.send(f"{shop.base}/request/jobs/get", body[:-1])
    shop.send("lamp", json.dumps({"state": "off", "api_key": key}))
    shop.send(f"{shop.base}/state/objects/nobody", json.dumps({"state": "on", "api_key": key}))
    await shop.settle()
    assert json.loads(shop.texts("out/lamp")[-1]) == {"state": "off"}
    kept = repr(vars(shop.store)) + repr(await shop.jobs())
    assert key not in kept
    theirs = ("lamp", f"{shop.base}/request/", f"{shop.base}/state/")
    ours = [each for each in shop.broker.published if not each.topic.startswith(theirs)]
    assert not [each.topic for each in ours if key.encode() in each.payload]
    reported = capfd.readouterr()
    assert key not in reported.out + reported.err
