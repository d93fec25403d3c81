"""A plugin of an installed package with something wrong is left out and named; everything else goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mqttjobs.cli.app import app as program
from mqttjobs.config.plugins import FAMILIES, plugin_problems
from mqttjobs.domain.conditions.base import condition_kinds
from mqttjobs.domain.triggers.base import trigger_keys
from mqttjobs.executors.base import executor_types
from mqttjobs.service.api.request import methods
from mqttjobs.store.base import STORES
from mqttjobs.transport.base import TRANSPORTS
from tests.plugins.conftest import Install
from tests.plugins.examples import GROUPS, source

TYPE = """
from typing import Any, ClassVar
from mqttjobs.plugins import Executor, Outcome, RunContext

class Echo(Executor):
    kind: ClassVar[Any] = {kind!r}
    text: str = ""
    {more}

    {run} run(self, context: RunContext) -> Outcome:
        return Outcome(ok=True, result=self.text)
"""
EXECUTORS, STORE, TRANSPORT = "mqttjobs.executors", "mqttjobs.store", "mqttjobs.transport"
METHODS, CONDITIONS, TRIGGERS = "mqttjobs.service.methods", "mqttjobs.domain.conditions", "mqttjobs.triggers"


def a_type(kind: object = "echo", *, more: str = "pass", run: str = "async def") -> str:
    return TYPE.format(kind=kind, more=more, run=run)


def a_method(name: str = "echo/say", marked: str = "method", function: str = "async def") -> str:
    return f"""
from mqttjobs.plugins import NoParams, method

@{marked}({name!r}, "job:read", params=NoParams)
{function} say(request, params):
    return {{}}
"""


def a_condition(key: str = "echo", *, missing: str = "") -> str:
    functions = {"holds": "True", "describe": "'it is so'"}
    lines = [f"    def {name}(self, context): return {value}" for name, value in functions.items() if name != missing]
    return "\n".join(
        ["from mqttjobs.plugins import ConditionKind", "class Echo(ConditionKind):", f"    {key}: str", *lines]
    )


def a_trigger_key(key: str = "echo", *, name: object = "echo") -> str:
    named = "pass" if name is None else f"name: ClassVar[Any] = {name!r}"
    lines = [f"    {named}", f"    echo: str = Field(alias={key!r}, description='says it')"]
    imports = [
        "from typing import Any, ClassVar",
        "from pydantic import Field",
        "from mqttjobs.plugins import TriggerKey",
    ]
    return "\n".join([*imports, "class Echo(TriggerKey):", *lines])


def problems() -> list[str]:
    return [str(each) for each in plugin_problems()]


def check(folder: Path, **operation: Any) -> tuple[int, list[str]]:
    """Return the exit code of `mqttjobs check` on one operation, and the lines that it prints."""
    file = folder / "home.yaml"
    file.write_text(json.dumps({"operations": {"op": {"type": "mqtt", "topic": "out", **operation}}}))
    result = CliRunner().invoke(program, ["check", str(file)])
    return result.exit_code, [line.removeprefix(f"{file}:") for line in result.output.splitlines()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import a_library_that_is_missing", "ModuleNotFoundError: No module named 'a_library_that_is_missing'"),
        ("def f(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('no')", "ValueError: no"),
        ("import sys\nsys.exit('no')", "SystemExit: no"),
        ("from mqttjobs.plugins import Exekutor", "ImportError: cannot import name 'Exekutor' from 'mqttjobs.plugins'"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_and_the_others_are_used(
    install: Install, text: str, message: str
) -> None:
    install("mqttjobs-broken", {EXECUTORS: {"broken": "broken"}}, broken=text)
    install("mqttjobs-wake", {EXECUTORS: {"wake": "mqttjobs_wake"}}, mqttjobs_wake=source("mqttjobs_wake"))
    (problem,) = problems()
    head = "the plugin 'broken' of mqttjobs-broken 1.0 (mqttjobs.executors) is not used: it cannot be imported: "
    assert problem.startswith(head + message), problem
    assert executor_types().keys() == {"mqtt", "program", "script", "wake"}


def test_where_an_import_fails_is_told(install: Install) -> None:
    text = "import json\n\njson.loads('{')\n"
    install("mqttjobs-broken", {EXECUTORS: {"broken": "broken"}}, broken=f"import deeper\n{text}", deeper=text)
    (problem,) = problems()
    assert problem.endswith("decoder.py:" + problem.rpartition(":")[2])
    install("mqttjobs-other", {EXECUTORS: {"other": "no.such.module"}})
    assert problems()[1].endswith("is not used: it cannot be imported: ModuleNotFoundError: No module named 'no'")


@pytest.mark.parametrize(
    ("group", "text", "message"),
    [
        (EXECUTORS, "", "plugin has no operation type"),
        (EXECUTORS, a_type("two words"), "plugin.Echo.kind must be a text of letters, digits, _ and -"),
        (EXECUTORS, a_type(5), "plugin.Echo.kind must be a text of letters, digits, _ and -"),
        (EXECUTORS, a_type(run="def"), "plugin.Echo has no `async def run`"),
        (EXECUTORS, a_type().replace("async def run", "async def walk"), "plugin.Echo has no `async def run`"),
        (EXECUTORS, a_type(more="timeout: float = 1"), "plugin.Echo.timeout has the name of a key that all operations"),
        (EXECUTORS, a_type(more="triggerStates: str = ''"), "plugin.Echo.triggerStates has the name of a key that all"),
        (
            EXECUTORS,
            "from pydantic import Field\n" + a_type(more="from_: str = Field(default='', alias='from')"),
            "plugin.Echo.from_ has an alias: the key of a type is the name of the field",
        ),
        (EXECUTORS, a_type(more="delivery = 'once'"), "plugin.Echo.delivery must be a Delivery"),
        (EXECUTORS, a_type(more="uses_slot: ClassVar[Any] = None"), "plugin.Echo.uses_slot must be a bool"),
        (EXECUTORS, a_type() + a_type().replace("Echo", "Other"), "plugin has the operation type 'echo' twice"),
        (EXECUTORS, a_type("mqtt"), "the operation type 'mqtt' is one of mqttjobs itself"),
        (STORE, "", 'plugin has no SCHEMES, such as SCHEMES = frozenset({"redis"})'),
        (STORE, "SCHEMES = 'echo'", 'plugin has no SCHEMES, such as SCHEMES = frozenset({"redis"})'),
        (STORE, "SCHEMES = ['Echo:']", "plugin: 'Echo:' in SCHEMES is no scheme of a URL in lower case"),
        (STORE, "SCHEMES = [5]", "plugin: 5 in SCHEMES is no scheme of a URL in lower case"),
        (STORE, "SCHEMES = ['echo']", "plugin has no function resolve_url()"),
        (STORE, "SCHEMES = ['echo']\nresolve_url = str", "plugin has no function create()"),
        (
            STORE,
            "SCHEMES = ['sqlite']\nresolve_url = create = str",
            "the URL scheme 'sqlite' is one of mqttjobs itself",
        ),
        (TRANSPORT, "SCHEMES = ['echo']\nresolve_url = str", "plugin has no function create()"),
        (
            TRANSPORT,
            "SCHEMES = ['echo']\nresolve_url = create = str",
            "plugin has no OPTIONS: which of password, protocol",
        ),
        (
            TRANSPORT,
            "SCHEMES = ['echo']\nOPTIONS = ['colour']\nresolve_url = create = str",
            "plugin has no OPTIONS: which of password, protocol, session_expiry, tls, username it takes",
        ),
        (METHODS, "", "plugin has no request method"),
        (METHODS, a_method("say"), "plugin.say: the method 'say' must be named like noun/verb"),
        (
            METHODS,
            a_method().replace("job:read", "job:reed"),
            "plugin.say: there is no permission 'job:reed'; the known",
        ),
        (METHODS, a_method(function="def"), "plugin.say must be an `async def`"),
        (METHODS, a_method().replace("params=NoParams", "params=dict"), "plugin.say: params must be a class of Params"),
        (METHODS, a_method("jobs/get"), "the request method 'jobs/get' is one of mqttjobs itself"),
        (CONDITIONS, "", "plugin has no condition key"),
        (CONDITIONS, a_condition(missing="holds"), "plugin.Echo has no holds()"),
        (CONDITIONS, a_condition(missing="describe"), "plugin.Echo has no describe()"),
        (CONDITIONS, a_condition("states"), "the condition key 'states' is one of mqttjobs itself"),
        (TRIGGERS, "", "plugin has no trigger key"),
        (TRIGGERS, a_trigger_key(name=None), "plugin.Echo.name must be one of its keys"),
        (TRIGGERS, a_trigger_key(name="other"), "plugin.Echo.name must be one of its keys"),
        (TRIGGERS, a_trigger_key(name=["echo"]), "plugin.Echo.name must be one of its keys"),
        (TRIGGERS, a_trigger_key("for", name="for"), "the trigger key 'for' is one of mqttjobs itself"),
    ],
)
def test_a_plugin_that_lacks_what_its_family_needs_is_named(
    install: Install, group: str, text: str, message: str
) -> None:
    before = [family.members() for family in FAMILIES]
    install("mqttjobs-echo", {group: {"echo": "plugin"}}, plugin=text)
    (problem,) = problems()
    assert problem.startswith(f"the plugin 'echo' of mqttjobs-echo 1.0 ({group}) is not used: {message}"), problem
    assert [family.members() for family in FAMILIES] == before


def test_an_entry_point_names_a_module(install: Install) -> None:
    install("mqttjobs-echo", {EXECUTORS: {"echo": "plugin:Echo"}}, plugin=a_type())
    (problem,) = problems()
    assert problem.endswith("is not used: 'plugin:Echo' is no name of a module")


def test_of_two_packages_with_one_name_neither_is_used(install: Install, tmp_path: Path) -> None:
    install("mqttjobs-one", {EXECUTORS: {"echo": "one"}}, one=a_type())
    install("mqttjobs-two", {EXECUTORS: {"echo": "two"}}, two=a_type())
    install("mqttjobs-wake", {EXECUTORS: {"wake": "mqttjobs_wake"}}, mqttjobs_wake=source("mqttjobs_wake"))
    tail = "(mqttjobs.executors) is not used: the operation type 'echo' is in"
    assert problems() == [
        f"the plugin 'echo' of mqttjobs-one 1.0 {tail} mqttjobs-two 1.0 too; uninstall one of the two",
        f"the plugin 'echo' of mqttjobs-two 1.0 {tail} mqttjobs-one 1.0 too; uninstall one of the two",
    ]
    assert executor_types().keys() == {"mqtt", "program", "script", "wake"}
    code, lines = check(tmp_path, type="echo")
    assert code == 2
    assert lines[0].startswith("0: the plugin 'echo' of mqttjobs-one 1.0")
    assert lines[2].startswith("1: operations.op.type: must be one of mqtt, program, script, wake")


def test_a_module_that_is_named_twice_or_borrows_a_class_is_no_clash(install: Install) -> None:
    install("mqttjobs-echo", {EXECUTORS: {"echo": "plugin", "again": "plugin"}}, plugin=a_type())
    borrowing = f"from plugin import Echo\n{a_type('more')}"
    install(
        "mqttjobs-more", {EXECUTORS: {"more": "borrowing"}}, borrowing=borrowing.replace("class Echo", "class More")
    )
    assert problems() == []
    assert executor_types().keys() == {"mqtt", "program", "script", "echo", "more"}


def test_a_broken_plugin_that_nothing_needs_is_a_warning_and_one_that_is_needed_is_why(
    install: Install, tmp_path: Path
) -> None:
    install("mqttjobs-wake", {EXECUTORS: {"wake": "mqttjobs_wake"}}, mqttjobs_wake="import a_library_that_is_missing")
    code, lines = check(tmp_path)
    assert code == 0
    why = "the plugin 'wake' of mqttjobs-wake 1.0 (mqttjobs.executors) is not used: it cannot be imported: "
    assert sum(line.startswith(f"0: warning: {why}ModuleNotFoundError") for line in lines) == 1, lines
    assert f"{tmp_path / 'home.yaml'} is good." in lines
    code, lines = check(tmp_path, type="wake")
    assert code == 2
    assert lines[0].startswith(f"0: {why}ModuleNotFoundError: No module named 'a_library_that_is_missing'")
    assert lines[1].startswith("1: operations.op.type: must be one of mqtt, program, script")
    assert "Traceback" not in "".join(lines)


def test_all_families_are_found_in_installed_packages(install: Install) -> None:
    install(
        "mqttjobs-examples",
        {group: {module: module} for module, group in GROUPS.items()},
        **{module: source(module) for module in GROUPS},
    )
    assert problems() == []
    assert "wake" in executor_types()
    assert "audit" in STORES.members()
    assert "failover" in TRANSPORTS.members()
    assert "operations/last" in methods()
    assert "months" in condition_kinds()
    assert "every" in trigger_keys()
