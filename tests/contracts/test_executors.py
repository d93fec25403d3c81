"""The contract of the operation types: the effects and outcomes of programs, scripts and publishes."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mqttjobs.domain.jobs import Outcome
from mqttjobs.errors import TemplateError
from mqttjobs.executors.base import Executor, Limits
from mqttjobs.executors.types.mqtt import Mqtt
from mqttjobs.executors.types.program import Program
from mqttjobs.executors.types.script import Script
from mqttjobs.transport.base import Publication
from tests.contracts.contexts import JOB_ID, SECRET, VARIABLES, WAIT_S, a_context


def python(code: str, *args: str, **fields: Any) -> Program:
    """Return a program operation that runs Python code."""
    return Program(path=sys.executable, args=("-c", code, *args), **fields)


async def run(executor: Executor, **changes: Any) -> Outcome:
    async with asyncio.timeout(WAIT_S + 10):
        return await executor.run(a_context(**changes))


def stdout(outcome: Outcome) -> str:
    text = outcome.description["stdout"]
    assert isinstance(text, str)
    return text


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(check: Callable[[], object], message: str) -> None:
    """Poll until `check` holds, for changes that no event reports."""
    deadline = time.monotonic() + WAIT_S
    while not check():
        assert time.monotonic() < deadline, message
        await asyncio.sleep(0.01)


def children() -> set[int]:
    """Return the child processes of this process, zombies included."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set(map(int, (task / "children").read_text().split()))
    return found


@pytest.fixture(autouse=True)
async def no_child_is_left_behind() -> AsyncIterator[None]:
    """No test of this module may leave a child process, a zombie or an open file; the event loop's do not count."""
    before = children()
    files = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert children() <= before, "a child process was left behind"
    assert len(list(Path("/proc/self/fd").iterdir())) <= files, "a file was left open"


# -- arguments, environment, standard input --------------------------------------------------------------------------

SHOW_ARGS = "import sys, json; print(json.dumps(sys.argv[1:]))"


async def test_arguments_reach_a_program_unchanged_and_without_a_shell() -> None:
    odd = ["$HOME", "`id`", "a b", "", "*", "; echo x", "\\n", "'\"", "é"]
    outcome = await run(python(SHOW_ARGS, *odd))
    assert (outcome.ok, outcome.result) == (True, odd)


async def test_variables_in_arguments_are_inserted_as_text_or_json() -> None:
    outcome = await run(
        python(SHOW_ARGS, "{{ args.text }}", "--room={{properties.room}}", "{{ properties.level }}", "{{ payload }}")
    )
    assert outcome.result == ["a b", "--room=Küche", "3", '{"n":[1,{"m":2}]}']


async def test_an_unknown_variable_is_a_template_error() -> None:
    with pytest.raises(TemplateError, match="nothing"):
        await run(python(SHOW_ARGS, "{{ properties.nothing }}"))


async def test_a_program_gets_one_json_object_on_its_standard_input() -> None:
    outcome = await run(python("import sys; sys.stdout.write(sys.stdin.read())"))
    assert outcome.result == {
        **VARIABLES,
        "params": {"n": 1},
        "events": ["press"],
        "preferences": {"color": "red"},
        "job": {"id": JOB_ID},
    }


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_program_that_does_not_read_its_standard_input_still_ends(size: int) -> None:
    outcome = await run(python("print(1)"), params={"x": "y" * size})
    assert (outcome.ok, outcome.result) == (True, 1)


async def test_standard_input_larger_than_any_pipe_arrives_whole() -> None:
    outcome = await run(
        python("import sys, json; print(len(json.load(sys.stdin)['params']['x']))"), params={"x": "y" * 3_000_000}
    )
    assert outcome.result == 3_000_000


async def test_the_environment_is_path_lang_home_our_variables_and_env_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD_OF_THE_SERVICE", "not for you")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("MQTTJOBS_STOWAWAY", "not for you")
    outcome = await run(
        python(
            "import os, json; print(json.dumps(dict(os.environ)))",
            env={"ROOM": "{{ properties.room }}", "LC_ALL": "C.UTF-8"},
        )
    )
    assert isinstance(outcome.result, dict)
    made = outcome.result
    assert {name for name in made if not name.startswith("MQTTJOBS_")} <= {"PATH", "LANG", "HOME", "ROOM", "LC_ALL"}
    assert (made["PATH"], made["LANG"], made["ROOM"]) == (os.environ["PATH"], "C.UTF-8", "Küche")
    assert "MQTTJOBS_STOWAWAY" not in made
    assert made["MQTTJOBS_ID"] == "lamp"
    assert made["MQTTJOBS_PROPERTIES_ROOM"] == "Küche"
    assert made["MQTTJOBS_PROPERTIES_LEVEL"] == "3"
    assert made["MQTTJOBS_PARAMS_N"] == "1"
    assert made["MQTTJOBS_JOB_ID"] == JOB_ID
    assert made["MQTTJOBS_AGENT"] == "hub"
    assert made["MQTTJOBS_PREF_COLOR"] == "red"


@pytest.mark.parametrize("value", ["a\0b", "x" * 1_000_000, "\n", "="])
async def test_a_variable_that_no_environment_can_hold_does_not_stop_the_program(value: str) -> None:
    code = "import sys, json; print(json.dumps([ord(c) for c in json.load(sys.stdin)['params']['x'][:10]]))"
    outcome = await run(python(code), params={"x": value})
    assert (outcome.error, outcome.result) == ("", [ord(character) for character in value[:10]])


async def test_many_large_variables_do_not_stop_the_program() -> None:
    outcome = await run(python("print(1)"), params={f"x{n}": "y" * 90_000 for n in range(40)})
    assert (outcome.error, outcome.result) == ("", 1)


@pytest.mark.parametrize(("arg", "env"), [("a\0b", {}), ("a", {"A=B": "1"}), ("a", {"A\0": "1"}), ("a", {"": "1"})])
async def test_impossible_arguments_and_names_are_reported_at_load_or_fail_the_job(
    arg: str, env: dict[str, str]
) -> None:
    executor = python("print(1)", arg, env=env)
    if executor.problems(Limits()):
        return
    outcome = await run(executor)
    assert not outcome.ok
    assert outcome.exit_code == 126


# -- scripts ---------------------------------------------------------------------------------------------------------


async def test_a_script_is_run_by_its_interpreter_with_its_arguments() -> None:
    assert stdout(await run(Script(text='echo "$1 $MQTTJOBS_ID"', args=("{{ args.text }}",)))).strip() == "a b lamp"
    text = "import sys, json\nprint(json.dumps([sys.argv[1], json.load(sys.stdin)['id']]))"
    outcome = await run(Script(text=text, interpreter=(sys.executable,), args=("x",)))
    assert outcome.result == ["x", "lamp"]


async def test_a_script_of_any_length_is_run_whole() -> None:
    text = "# padding\n" * 50_000 + "echo end"
    assert stdout(await run(Script(text=text))).strip() == "end"


async def test_a_script_file_is_run_from_the_folder_of_the_configuration_only(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "good.sh").write_text("echo good")
    (tmp_path / "outside.sh").write_text("echo outside")
    (folder / "link.sh").symlink_to(tmp_path / "outside.sh")
    limits = Limits(config_dir=str(folder))
    assert stdout(await run(Script(ref="good.sh"), limits=limits)).strip() == "good"
    for ref in ("../outside.sh", str(tmp_path / "outside.sh"), "link.sh", "missing.sh", "."):
        script = Script(ref=ref)
        assert "ref" in script.problems(limits)
        outcome = await run(script, limits=limits)
        assert not outcome.ok
        assert "outside" not in stdout(outcome) if "stdout" in outcome.description else True


def test_variables_are_never_inserted_into_a_script() -> None:
    assert "text" in Script(text="echo {{ params.text }}").problems(Limits())
    assert Script(text="docker ps --format '{{ .Names }}'").problems(Limits()) == {}
    assert "text" in Script().problems(Limits())
    assert "text" in Script(text="x", ref="y").problems(Limits())
    assert Script(text="echo 1").problems(Limits()) == {}


# -- where programs may be -------------------------------------------------------------------------------------------


async def test_a_program_outside_the_allowed_folders_is_not_run(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    mark = tmp_path / "mark"
    outside = tmp_path / "outside.sh"
    outside.write_text(f"#!/bin/sh\ntouch {mark}\n")
    outside.chmod(0o700)
    (allowed / "link.sh").symlink_to(outside)
    limits = Limits(program_dirs=(str(allowed),))
    for path in (outside, allowed / "link.sh", allowed / ".." / "outside.sh"):
        program = Program(path=str(path))
        assert "path" in program.problems(limits)
        assert not (await run(program, limits=limits)).ok
    assert not mark.exists()
    inside = allowed / "inside.sh"
    inside.write_text("#!/bin/sh\necho 1\n")
    inside.chmod(0o700)
    assert (await run(Program(path=str(inside)), limits=limits)).result == 1


def test_a_path_that_is_not_absolute_is_a_problem() -> None:
    assert "path" in Program(path="ls").problems(Limits())
    assert Program(path="/bin/ls").problems(Limits()) == {}


# -- how it ended ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1, 2, 63, 64, 65, 66, 124, 125, 255])
async def test_an_exit_code_fails_the_job_and_64_and_65_mean_wrong_input(code: int) -> None:
    outcome = await run(Script(text=f"echo why >&2; exit {code}"))
    assert not outcome.ok
    assert outcome.exit_code == code
    assert outcome.description["exitCode"] == code
    assert outcome.user_error is (code in (64, 65))
    assert f"exit code {code}" in outcome.error
    assert "why" in outcome.error
    assert outcome.stderr.strip() == "why"


async def test_exit_code_zero_completes_the_job() -> None:
    outcome = await run(Script(text="echo out; echo err >&2"))
    assert (outcome.ok, outcome.error, outcome.exit_code) == (True, "", 0)
    assert (stdout(outcome), outcome.stderr) == ("out\n", "err\n")
    assert outcome.user_error is False


async def test_a_program_ended_by_a_signal_has_the_exit_code_that_a_shell_gives() -> None:
    outcome = await run(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert (outcome.ok, outcome.exit_code) == (False, 128 + 9)


async def test_a_missing_program_has_the_exit_code_127() -> None:
    outcome = await run(Program(path="/nowhere/at/all"))
    assert (outcome.ok, outcome.exit_code, outcome.description["exitCode"]) == (False, 127, 127)
    assert "/nowhere/at/all" in outcome.error


async def test_a_file_that_cannot_be_executed_has_the_exit_code_126(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\necho 1\n")
    plain.chmod(0o600)
    for path in (plain, tmp_path):
        outcome = await run(Program(path=str(path)))
        assert (outcome.ok, outcome.exit_code) == (False, 126), path
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x00\x01\x02 no program")
    binary.chmod(0o700)
    assert (await run(Program(path=str(binary)))).exit_code == 126


async def test_a_missing_interpreter_has_the_exit_code_127() -> None:
    outcome = await run(Script(text="x", interpreter=("/nowhere/python",)))
    assert (outcome.ok, outcome.exit_code) == (False, 127)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("\n [1]\n\n", [1]),
        ('"text"', "text"),
        ("3.5", 3.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("two words", None),
        ('{"a":1}{"b":2}', None),
        ('{"a":1', None),
        ("NaN", None),
        ('{"a":1,"a":2}', None),
        ("[" * 5000, None),
    ],
)
async def test_standard_output_that_is_one_json_value_is_the_result(text: str, result: object) -> None:
    outcome = await run(python("import sys; sys.stdout.write(sys.argv[1])", text))
    assert outcome.ok
    assert outcome.result == result
    assert stdout(outcome) == text


async def test_a_failed_program_has_a_result_too() -> None:
    outcome = await run(Script(text="echo '{\"why\": 1}'; exit 3"))
    assert (outcome.ok, outcome.result) == (False, {"why": 1})


@pytest.mark.parametrize(
    ("text", "changed"),
    [('{"changed": true}', True), ('{"changed": false}', False), ('{"changed": 1}', False), ("1", False)],
)
async def test_a_program_says_in_its_result_whether_it_changed_anything(text: str, changed: bool) -> None:
    assert (await run(python("import sys; print(sys.argv[1])", text))).changed is changed


async def test_output_that_is_not_utf_8_is_kept_as_far_as_possible() -> None:
    outcome = await run(
        python("import sys; sys.stdout.buffer.write(b'a\\xff\\x00b'); sys.stderr.buffer.write(b'\\xfe')")
    )
    assert outcome.ok
    text = stdout(outcome)
    assert (text[0], text[-1]) == ("a", "b")
    assert "\0" not in text
    json.dumps(text).encode()


# -- progress --------------------------------------------------------------------------------------------------------


async def test_message_lines_are_progress_and_left_out_of_standard_output() -> None:
    reported: list[str] = []
    text = (
        "echo before; echo '::message:: one step '; echo '{\"a\": 1}'; echo '::message:: é two'; echo ' ::message:: no'"
    )
    outcome = await run(Script(text=text), progress=reported.append)
    assert reported == ["one step", "é two"]
    assert stdout(outcome) == 'before\n{"a": 1}\n ::message:: no\n'


async def test_a_result_stays_a_result_beside_progress() -> None:
    outcome = await run(Script(text="echo '::message:: half'; echo '{\"a\": 1}'; printf '::message:: end'"))
    assert outcome.result == {"a": 1}


async def test_progress_is_reported_while_the_program_still_runs() -> None:
    first = asyncio.Event()
    task = asyncio.create_task(
        run(Script(text="echo '::message:: go'; exec sleep 1000"), progress=lambda _: first.set())
    )
    async with asyncio.timeout(WAIT_S):
        await first.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_message_line_that_comes_in_pieces_is_one_message() -> None:
    reported: list[str] = []
    code = (
        "import sys, time\n"
        "for piece in ('::mess', 'age:: in ', 'pie', 'ces\\nrest'):\n"
        "    sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.02)\n"
    )
    outcome = await run(python(code), progress=reported.append)
    assert (reported, stdout(outcome)) == (["in pieces"], "rest")


@pytest.mark.parametrize("size", [10_000, 60_000, 300_000])
async def test_a_progress_message_has_at_most_4096_bytes_however_long_its_line_is(size: int) -> None:
    reported: list[str] = []
    code = f"import os; os.write(1, b'::message:: ' + b'x' * {size} + b'\\n7\\n')"
    outcome = await run(python(code), progress=reported.append)
    assert outcome.ok
    assert reported
    assert max(map(len, reported)) <= 4096
    assert stdout(outcome).endswith("\n7\n") or stdout(outcome) == "7\n"


async def test_message_lines_on_standard_error_are_not_progress() -> None:
    reported: list[str] = []
    outcome = await run(Script(text="echo '::message:: x' >&2"), progress=reported.append)
    assert (reported, outcome.stderr) == ([], "::message:: x\n")


# -- floods ----------------------------------------------------------------------------------------------------------

LIMIT = 64 * 1024


async def test_output_up_to_the_limit_is_kept_whole() -> None:
    outcome = await run(python(f"print('\"' + 'x' * {LIMIT - 3} + '\"', end='')"))
    assert outcome.result == "x" * (LIMIT - 3)


@pytest.mark.parametrize("piece", [7, LIMIT // 2 - 1, LIMIT // 2, LIMIT])
@pytest.mark.parametrize("beyond", [0, 1, LIMIT // 2 - 1])
async def test_the_limit_is_the_same_for_output_in_pieces_of_any_size(piece: int, beyond: int) -> None:
    size = LIMIT + beyond
    code = f"import os\ndata = (b'0123456789' * {size})[:{size}]\nwhile data: data = data[os.write(1, data[:{piece}]):]"
    outcome = await run(python(code))
    whole = ("0123456789" * size)[:size]
    kept = f"{whole[: LIMIT // 2]}\n[… {beyond} bytes left out …]\n{whole[-LIMIT // 2 :]}"
    assert stdout(outcome) == (kept if beyond else whole)
    assert ("truncated" in outcome.stderr) == bool(beyond)


async def test_of_more_output_head_and_tail_are_kept_with_a_line_that_counts_the_bytes_between() -> None:
    outcome = await run(python("import sys; sys.stdout.write('H' * 100_000 + 'M' * 1_000_000 + 'T' * 100_000)"))
    text = stdout(outcome)
    assert outcome.ok
    assert outcome.result is None
    head, middle, tail = text.split("\n")
    assert (set(head), set(tail)) == ({"H"}, {"T"})
    left_out = [int(word) for word in middle.split() if word.isdigit()]
    assert left_out == [1_200_000 - len(head) - len(tail)]
    assert LIMIT - 1000 <= len(text) <= LIMIT + 1000
    assert "truncated" in outcome.stderr


async def test_a_flood_of_digits_is_not_a_result() -> None:
    outcome = await run(python("import sys; sys.stdout.write('1' * 1_000_000)"))
    assert (outcome.ok, outcome.result) == (True, None)


async def test_standard_error_is_bounded_too_and_does_not_touch_the_result() -> None:
    outcome = await run(python("import sys; sys.stderr.write('x' * 1_000_000); print(7)"))
    assert outcome.result == 7
    assert len(outcome.stderr) <= LIMIT + 1000
    assert "left out" in outcome.stderr


@pytest.mark.parametrize("line", ["b'x' * 65536", "b'x\\n' * 32768", "b'::message:: ' + b'x' * 65536"])
async def test_a_flood_does_not_grow_memory(line: str) -> None:
    code = f"import os\ndata = {line}\nwhile True: os.write(1, data); os.write(2, data)"
    await run(python("pass"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = await run(python(code), timeout=timedelta(seconds=1), grace=timedelta(seconds=0.1))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert outcome.exit_code == 124
    assert grown < 30_000, f"{grown} KiB"


@pytest.mark.alone
async def test_a_flood_does_not_block_the_event_loop() -> None:
    code = "import os\nwhile True: os.write(1, b'x\\n' * 32768)"
    turns = 0
    task = asyncio.create_task(run(python(code), timeout=timedelta(seconds=1), grace=timedelta(seconds=0.1)))
    longest = 0.0
    while not task.done():
        start = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - start)
        turns += 1
    assert (await task).exit_code == 124
    assert longest < 0.5, f"nothing else ran for {longest} s"
    assert turns > 20


# -- the time limit --------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_time_limit_ends_a_program_with_124_and_keeps_what_it_wrote() -> None:
    start = time.monotonic()
    outcome = await run(Script(text="echo so far; exec sleep 1000"), timeout=timedelta(seconds=0.3))
    assert (outcome.ok, outcome.exit_code, outcome.description["exitCode"]) == (False, 124, 124)
    assert "timed out" in outcome.error
    assert stdout(outcome) == "so far\n"
    assert outcome.user_error is False
    assert time.monotonic() - start < 2


@pytest.mark.alone
async def test_a_program_gets_term_first_and_may_clean_up() -> None:
    text = "trap 'echo tidy; exit 64' TERM; echo ready; while :; do sleep 0.01; done"
    outcome = await run(Script(text=text), timeout=timedelta(seconds=0.5))
    assert stdout(outcome) == "ready\ntidy\n"
    assert (outcome.exit_code, outcome.user_error) == (124, False)


@pytest.mark.alone
async def test_a_program_that_ignores_term_is_killed_after_the_grace() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(1000)"
    start = time.monotonic()
    outcome = await run(python(code), timeout=timedelta(seconds=0.4), grace=timedelta(seconds=0.4))
    took = time.monotonic() - start
    assert outcome.exit_code == 124
    assert 0.8 <= took < 1.8


@pytest.mark.alone
async def test_the_children_of_a_program_that_obeys_term_have_the_grace_to_clean_up_too() -> None:
    child = "trap 'sleep 0.4; echo tidy; exit' TERM; echo ready; while :; do sleep 0.01; done"
    text = '/bin/sh -c "$CHILD" & trap "exit 0" TERM; wait'
    outcome = await run(Script(text=text, env={"CHILD": child}), timeout=timedelta(seconds=0.5))
    assert stdout(outcome) == "ready\ntidy\n"
    assert outcome.exit_code == 124


@pytest.mark.alone
async def test_a_child_that_left_its_group_and_holds_the_pipe_does_not_hold_up_the_end() -> None:
    reported: list[int] = []
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); print('::message::', os.getpid(), flush=True); time.sleep(1000)\n"
        "import select; select.select([], [], [], 0.3); print(1, flush=True); {rest}\n"
    )
    try:
        outcome = await run(python(code.format(rest="")), progress=lambda text: reported.append(int(text)))
        assert (outcome.ok, outcome.result) == (True, 1)
        start = time.monotonic()
        limits = {"timeout": timedelta(seconds=0.6), "grace": timedelta(seconds=0.3)}
        outcome = await run(
            python(code.format(rest="time.sleep(1000)")), progress=lambda text: reported.append(int(text)), **limits
        )
        assert outcome.exit_code == 124
        assert time.monotonic() - start < 0.6 + 0.3 + 1
    finally:
        for pid in reported:
            os.kill(pid, signal.SIGKILL)
    assert len(reported) == 2


FAMILY = """
import os, signal, sys, time
{leader}
if os.fork() == 0:
    if os.fork() == 0:
        {grandchild}
        print('::message::', os.getpid(), flush=True)
        time.sleep(1000)
        os._exit(0)
    time.sleep(1000)
    os._exit(0)
{rest}
"""
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.mark.alone
@pytest.mark.parametrize("stubborn", [False, True], ids=["obeys TERM", "ignores TERM"])
async def test_a_time_limit_ends_grandchildren_that_hold_the_pipe_too(stubborn: bool) -> None:
    reported: list[str] = []
    code = FAMILY.format(leader="", grandchild=IGNORE if stubborn else "pass", rest="time.sleep(1000)")
    start = time.monotonic()
    outcome = await run(
        python(code), timeout=timedelta(seconds=1), grace=timedelta(seconds=0.5), progress=reported.append
    )
    took = time.monotonic() - start
    assert outcome.exit_code == 124
    assert took < 3
    [grandchild] = map(int, reported)
    await until(lambda: not is_alive(grandchild), "the grandchild outlived the time limit")


async def test_children_that_hold_the_pipe_end_with_their_program() -> None:
    reported: list[str] = []
    code = FAMILY.format(leader="", grandchild="pass", rest="import select; select.select([], [], [], 0.3); print(1)")
    outcome = await run(python(code), progress=reported.append)
    assert (outcome.ok, outcome.exit_code, outcome.result) == (True, 0, 1)
    for pid in map(int, reported):
        await until(lambda pid=pid: not is_alive(pid), "a grandchild outlived its program")


async def test_a_program_runs_in_a_process_group_of_its_own() -> None:
    outcome = await run(python("import os, json; print(json.dumps([os.getpid(), os.getpgid(0), os.getsid(0)]))"))
    assert isinstance(outcome.result, list)
    pid, group, session = outcome.result
    assert pid == group == session
    assert group != os.getpgid(0)


async def test_a_program_that_closes_its_output_is_waited_for() -> None:
    code = "import os, time; os.write(1, b'7'); os.close(1); os.close(2); time.sleep(0.3); os._exit(3)"
    outcome = await run(python(code))
    assert (outcome.exit_code, outcome.result) == (3, 7)


async def test_a_program_that_stops_itself_is_ended_by_the_time_limit() -> None:
    outcome = await run(
        python("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"),
        timeout=timedelta(seconds=0.3),
        grace=timedelta(seconds=0.2),
    )
    assert outcome.exit_code == 124


FIRST_PROCESS = """
import asyncio, ctypes, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from tests.contracts.test_executors import Script, a_context, children
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
outcome = asyncio.run(Script(text="sleep 1000 & sleep 1000 & echo 1").run(a_context()))
assert outcome.result == 1, outcome
print(sorted(children()))
"""


async def test_the_first_process_of_a_container_inherits_no_zombies() -> None:
    """Orphans become children of the first process; those of a program's group are killed and reaped."""
    command = [sys.executable, "-c", FIRST_PROCESS, *filter(None, sys.path)]
    service = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=WAIT_S, check=False)
    assert (service.stdout, service.stderr) == (b"[]\n", b"")


# -- cancellation ----------------------------------------------------------------------------------------------------


async def test_a_cancelled_run_ends_the_whole_group_before_it_returns() -> None:
    reported: asyncio.Queue[int] = asyncio.Queue()
    code = FAMILY.format(
        leader="print('::message::', os.getpid(), flush=True)", grandchild=IGNORE, rest="time.sleep(1000)"
    )
    task = asyncio.create_task(
        python(code).run(a_context(grace=timedelta(seconds=0.3), progress=lambda m: reported.put_nowait(int(m))))
    )
    async with asyncio.timeout(WAIT_S):
        pids = [await reported.get(), await reported.get()]
    assert all(map(is_alive, pids))
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    for pid in pids:
        await until(lambda pid=pid: not is_alive(pid), "a process outlived the cancellation")


async def test_a_run_cancelled_twice_still_ends_the_group() -> None:
    reported: asyncio.Queue[int] = asyncio.Queue()
    code = f"import os, signal, time; {IGNORE}; print('::message::', os.getpid(), flush=True); time.sleep(1000)"
    task = asyncio.create_task(
        python(code).run(a_context(grace=timedelta(seconds=0.5), progress=lambda m: reported.put_nowait(int(m))))
    )
    async with asyncio.timeout(WAIT_S):
        pid = await reported.get()
        task.cancel()
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not is_alive(pid)


async def test_a_loop_that_cancels_everything_leaves_nothing_behind() -> None:
    """As at the end of a process, which cancels shielded tasks too."""
    reported: asyncio.Queue[int] = asyncio.Queue()
    ours = asyncio.all_tasks()
    text = "echo ::message:: $$; exec sleep 1000"
    task = asyncio.create_task(Script(text=text).run(a_context(progress=lambda m: reported.put_nowait(int(m)))))
    async with asyncio.timeout(WAIT_S):
        pid = await reported.get()
        while not task.done():
            for each in asyncio.all_tasks() - ours:
                each.cancel()
            await asyncio.sleep(0)
    assert task.cancelled()
    assert not is_alive(pid)


async def test_a_run_cancelled_before_its_start_starts_no_program(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    task = asyncio.create_task(Script(text=f"touch {mark}").run(a_context()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not mark.exists()


async def test_a_hundred_programs_at_once_leave_nothing_behind() -> None:
    outcomes = await asyncio.gather(*(run(Script(text=f"echo {n}")) for n in range(100)))
    assert [outcome.result for outcome in outcomes] == list(range(100))


async def test_a_program_dies_with_the_service() -> None:
    code = (
        "import asyncio, sys\n"
        "sys.path[:0] = sys.argv[1:]\n"
        "from tests.contracts.test_executors import Script, a_context\n"
        'asyncio.run(Script(text="echo ::message:: $$; exec sleep 1000").run(a_context('
        "progress=lambda m: print(m, flush=True))))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, *filter(None, sys.path)], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        async with asyncio.timeout(WAIT_S):
            pid = int(await asyncio.to_thread(service.stdout.readline))
        assert is_alive(pid)
        service.send_signal(signal.SIGKILL)
    await until(lambda: not is_alive(pid), "the program outlived the service")


# -- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "executor",
    [
        python("import sys; print(sys.argv[1]); print(sys.argv[1], file=sys.stderr)", "${ENV:TOKEN}"),
        Script(text='echo "$1"; echo "$1" >&2', args=("${ENV:TOKEN}",)),
        Script(text='echo "$TOKEN"; echo "$TOKEN" >&2', env={"TOKEN": "${ENV:TOKEN}"}),
        Script(text='echo "$1"; echo "$1" >&2', args=("{{ properties.key }}",)),
        Script(text='echo "$MQTTJOBS_PROPERTIES_KEY"; echo "$MQTTJOBS_PROPERTIES_KEY" >&2'),
        Script(text='echo "$MQTTJOBS_PREF_KEY"; echo "$MQTTJOBS_PREF_KEY" >&2'),
        python("import sys, json; k = json.load(sys.stdin)['properties']['key']; print(k); print(k, file=sys.stderr)"),
    ],
    ids=["argument", "script argument", "env", "property", "property in env", "preference", "standard input"],
)
async def test_a_secret_reaches_the_program_and_is_masked_in_what_it_writes(executor: Executor) -> None:
    seen = {"secret_templates": {"properties.key": "${ENV:TOKEN}"}, "preferences": {"key": "${ENV:TOKEN}"}}
    outcome = await run(executor, **seen)
    assert stdout(outcome) == "${ENV:TOKEN}\n"
    assert outcome.stderr == "${ENV:TOKEN}\n"
    assert SECRET not in repr(outcome)


async def test_a_secret_really_reaches_the_program() -> None:
    outcome = await run(python("import sys; print(len(sys.argv[1]))", "${ENV:TOKEN}"))
    assert outcome.result == len(SECRET)


async def test_a_secret_is_masked_in_results_errors_and_progress() -> None:
    reported: list[str] = []
    text = 'echo "::message:: using $T"; printf \'{"key": "%s"}\' "$T"; echo "bad $T" >&2; exit 1'
    outcome = await run(Script(text=text, env={"T": "${ENV:TOKEN}"}), progress=reported.append)
    assert outcome.result == {"key": "${ENV:TOKEN}"}
    assert SECRET not in outcome.error
    assert reported == ["using ${ENV:TOKEN}"]


async def test_a_secret_that_is_cut_where_output_was_left_out_is_removed() -> None:
    code = "import sys; sys.stdout.write((sys.argv[1] * 100_000))"
    outcome = await run(python(code, "${ENV:TOKEN}"))
    text = stdout(outcome).replace("${ENV:TOKEN}", "")
    for size in range(4, len(SECRET)):
        for start in range(len(SECRET) - size + 1):
            assert SECRET[start : start + size] not in text


@pytest.mark.parametrize("odd", [SECRET, 'pass"word', "pass\\word", "pass\tword", "pass/word"])
async def test_a_secret_with_characters_that_json_escapes_is_masked_too(odd: str) -> None:
    code = "import sys, json; print(json.dumps({'key': sys.argv[1]}))"
    outcome = await run(python(code, "${ENV:TOKEN}"), reveal=lambda _: odd)
    assert outcome.result == {"key": "${ENV:TOKEN}"}
    assert odd not in repr(outcome.result)
    assert json.dumps(odd) not in stdout(outcome)


@pytest.mark.parametrize("odd", ["kéy-0123456789abcdef", 'qu"ote\\back/slash', "ababab", "x" * 3000])
@pytest.mark.parametrize(
    "written", ["print(k * n)", "print(json.dumps([k] * n))", "print(json.dumps(json.dumps([k] * n)))"]
)
async def test_no_part_of_a_secret_stays_where_output_was_left_out(odd: str, written: str) -> None:
    """The output is shifted byte by byte, so that the secret is cut at every place."""
    code = "import sys, json; k = sys.argv[1]; n = 400_000 // len(k); print('.' * int(sys.argv[2]), end=''); " + written
    for shift in range(0, 24, 5):
        text = stdout(await run(python(code, "${ENV:TOKEN}", str(shift)), reveal=lambda _: odd))
        assert "left out" in text
        for part in text.replace("${ENV:TOKEN}", "").split("\n"):
            rest = "".join(c for c in part.removeprefix("…") if c not in '.[]", \\')
            assert rest == "" or "left out" in part, rest[:100]


async def test_a_secret_that_is_cut_at_the_end_of_a_long_progress_message_is_removed() -> None:
    reported: list[str] = []
    text = f'printf "::message:: %0{4096 - 6}d%s\n" 0 "$T"'
    outcome = await run(Script(text=text, env={"T": "${ENV:TOKEN}"}), progress=reported.append)
    assert outcome.ok
    assert reported == ["0" * (4096 - 6)]


async def test_a_character_is_not_cut_in_half_where_output_was_left_out() -> None:
    for shift in range(3):
        outcome = await run(python(f"print('.' * {shift} + '€' * 100_000)"))
        head, between, tail = stdout(outcome).removesuffix("\n").split("\n")
        assert set(head) <= {".", "€"}
        assert set(tail) == {"€"}
        assert "left out" in between


# -- mqtt ------------------------------------------------------------------------------------------------------------


class Broker:
    """Records publications and returns the same PUBACK code for each."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.taken: list[Publication] = []

    async def publish(self, publication: Publication) -> int:
        self.taken.append(publication)
        return self.code


async def test_a_message_is_published_as_it_is_configured() -> None:
    broker = Broker()
    outcome = await run(
        Mqtt(topic="{{ properties.topic }}/set", message="{{ state }}!", qos=2, retain=True), publish=broker.publish
    )
    assert (outcome.ok, outcome.changed, outcome.message) == (True, True, "")
    assert broker.taken == [Publication("home/lamp/set", b"on!", 2, retain=True)]
    assert outcome.description == {"topic": "home/lamp/set", "message": "on!"}


async def test_a_message_may_be_json_with_variables_that_keep_their_type() -> None:
    broker = Broker()
    await run(Mqtt(topic="t", message={"a": "{{ payload.n }}", "b": "x{{ id }}"}), publish=broker.publish)
    assert json.loads(broker.taken[0].payload) == {"a": [1, {"m": 2}], "b": "xlamp"}


async def test_a_message_without_text_is_empty() -> None:
    broker = Broker()
    await run(Mqtt(topic="t"), publish=broker.publish)
    assert broker.taken == [Publication("t", b"", 1)]


BAD_TOPICS = [
    "a/+/b", "a/#", "#", "a\0b", "$SYS/broker", "$share/g/t", "mqttjobs", "mqttjobs/request/jobs/list",
    "mqttjobs/event/job/completed", "mqttjobs/users/alice/response/x", "mqttjobs/state", "a" * 65_536,
]  # fmt: skip


@pytest.mark.parametrize("topic", BAD_TOPICS)
async def test_a_topic_that_no_operation_may_publish_to_is_a_problem_and_a_template_error(topic: str) -> None:
    broker = Broker()
    assert "topic" in Mqtt(topic=topic).problems(Limits())
    for executor in (Mqtt(topic=topic), Mqtt(topic="{{ properties.topic }}")):
        with pytest.raises(TemplateError):
            await run(executor, variables={"properties": {"topic": topic}}, publish=broker.publish)
    assert broker.taken == []


@pytest.mark.proves("sending", "workspace_id")
async def test_the_base_topic_is_that_of_the_installation() -> None:
    broker = Broker()
    limits = Limits(base_topic="home/jobs")
    with pytest.raises(TemplateError):
        await run(Mqtt(topic="home/jobs/request/x"), publish=broker.publish, limits=limits)
    await run(Mqtt(topic="mqttjobs/request/x"), publish=broker.publish, limits=limits)
    await run(Mqtt(topic="home/jobs2/x"), publish=broker.publish, limits=limits)
    assert [each.topic for each in broker.taken] == ["mqttjobs/request/x", "home/jobs2/x"]


@pytest.mark.parametrize(
    "name", ["args.path", "args.wild", "payload.topic", "state", "params.deep", "args", "user.name"]
)
async def test_a_value_from_a_message_or_a_caller_brings_neither_slash_nor_wildcard_into_a_topic(name: str) -> None:
    broker = Broker()
    variables = {
        **VARIABLES,
        "payload": {"topic": "lock/front"},
        "state": "+",
        "params": {"deep": "a/b"},
        "user": {"name": "/x"},
    }
    with pytest.raises(TemplateError):
        await run(Mqtt(topic=f"a/{{{{ {name} }}}}"), variables=variables, publish=broker.publish)
    assert broker.taken == []


async def test_a_value_from_a_message_without_slash_may_stand_in_a_topic() -> None:
    broker = Broker()
    await run(Mqtt(topic="a/{{ state }}/{{ args.text }}"), publish=broker.publish)
    assert broker.taken[0].topic == "a/on/a b"


@pytest.mark.parametrize(("code", "word"), [(0x80, "0x80"), (0x87, "not authorized"), (0x97, "quota"), (0xFF, "0xFF")])
async def test_a_reason_from_0x80_on_fails_the_job_with_it(code: int, word: str) -> None:
    outcome = await run(Mqtt(topic="t", message="m"), publish=Broker(code).publish)
    assert not outcome.ok
    assert word in outcome.error
    assert outcome.description == {"topic": "t", "message": "m"}


async def test_a_publish_without_subscriber_completes_with_a_message() -> None:
    outcome = await run(Mqtt(topic="t"), publish=Broker(0x10).publish)
    assert (outcome.ok, outcome.message, outcome.changed) == (True, "no subscriber", True)


async def test_a_secret_is_published_and_not_recorded() -> None:
    broker = Broker()
    outcome = await run(
        Mqtt(topic="t/${ENV:TOKEN}", message={"key": "{{ properties.key }}"}),
        publish=broker.publish,
        secret_templates={"properties.key": "${ENV:TOKEN}"},
    )
    assert broker.taken[0].topic == f"t/{SECRET}"
    assert json.loads(broker.taken[0].payload) == {"key": SECRET}
    assert SECRET not in repr(outcome)


async def test_a_state_that_an_operation_publishes_carries_its_depth() -> None:
    broker = Broker()
    await run(Mqtt(topic="mqttjobs/state/lamp"), publish=broker.publish, depth=3, root_id="root")
    assert dict(broker.taken[0].user_properties) == {"mqttjobs-root": "root", "mqttjobs-depth": "4"}


async def test_a_message_is_published_before_the_run_first_waits() -> None:
    order: list[str] = []
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def publish(publication: Publication) -> Awaitable[int]:
        order.append(publication.topic)
        return answer

    tasks = [asyncio.create_task(Mqtt(topic=f"t{n}").run(a_context(publish=publish))) for n in range(5)]
    await asyncio.sleep(0)
    assert order == ["t0", "t1", "t2", "t3", "t4"]
    answer.set_result(0)
    assert all(outcome.ok for outcome in await asyncio.gather(*tasks))
