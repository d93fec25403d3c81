"""The responses of operations/explain and of a simulation, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mqttjobs.cli.terminal import brief, exact_local_time, local_time, plain
from mqttjobs.domain.model import Json


def explanation(data: Mapping[str, Json]) -> Iterator[str]:
    """Yield the lines for the data of operations/explain."""
    yield plain(f"{data['id']}{_for(data)}: {data['name']}")
    if not data["active"]:
        yield "It is deactivated: nothing starts it."
    if not data["event_driven"]:
        yield "event_driven is false: state changes do not start it."
    if data["breaker"] is not None:
        yield f"Its breaker is open for {data['breaker']['open_for']:g} s more: it was started too often."
    if data["conditions"] is not None:
        yield _condition(data["conditions"], "It runs by itself only if")
    if data["schedule"] is not None:
        yield f"It {plain(data['schedule']['told'])}, next at {exact_local_time(data['schedule']['next'])}."
    for number, trigger in enumerate(data["triggers"], 1):
        yield ""
        yield from _trigger(number, trigger)
    if not data["triggers"] and data["schedule"] is None:
        yield "Nothing starts it but a request."
    yield ""
    if not data["not_run"]:
        yield "No match was skipped since the service started."
        return
    yield f"Matches that did not run, newest first ({len(data['not_run'])}):"
    for skipped_match in data["not_run"]:
        state = "" if skipped_match["state"] is None else f" at {brief(skipped_match['state'])}"
        yield plain(
            f"  {local_time(skipped_match['timestamp'])}{state}: {skipped_match['reason']}, {skipped_match['details']}"
        )


def _trigger(number: int, trigger: Mapping[str, Json]) -> Iterator[str]:
    yield plain(f"Trigger {number} {trigger['told']}.")
    if not trigger["enabled"]:
        yield "  It is not enabled."
        return
    watches = trigger["watches"]
    if watches is not None:
        current = "nothing was reported yet"
        if watches["state"] is not None:
            current = f"it is {brief(watches['state'])} since {local_time(watches['since'])}"
        satisfied = "as the trigger wants it" if trigger["satisfied"] else "not as the trigger wants it"
        yield plain(f"  Now {current}{f', {satisfied}' if watches['state'] is not None else ''}.")
    if trigger["waiting_for"] is not None:
        until = "" if trigger["until"] is None else f", until {local_time(trigger['until'])}"
        yield plain(f"  It waits for this: {trigger['waiting_for']}{until}.")
    if trigger["conditions"] is not None:
        yield "  " + _condition(trigger["conditions"], "It fires only if")
    fired = "It has not fired lately." if trigger["last_fired"] is None else ""
    yield "  " + (fired or f"It last fired at {exact_local_time(trigger['last_fired'])}.")


def _condition(condition: Mapping[str, Json], beginning: str) -> str:
    satisfied = "which is so" if condition["satisfied"] else "which is not so"
    return plain(f"{beginning} {condition['told']}: {satisfied}.")


def simulated_step(step: Mapping[str, Json]) -> Iterator[str]:
    """Yield the lines for one step of a simulation and its effects."""
    if step["step"] is not None:
        yield _step(step["step"])
    if step["step"] is not None and "after" in step["step"] and not step["seen"]:
        yield "  nothing came due"
    for seen in step["seen"]:
        yield from _seen(seen)


def _step(step: Mapping[str, Json]) -> str:
    if "after" in step:
        return f"> after {step['after']:g} s"
    if "topic" in step:
        kept = " (retained)" if step["retained"] else ""
        return plain(f"> {step['topic']} {step['payload']}{kept}")
    return plain(f"> {_value(step)} is reported as {step['state']}")


def _seen(seen: Mapping[str, Json]) -> Iterator[str]:
    at = exact_local_time(seen["at"])
    for refused in seen["refused"]:
        yield plain(f"  refused: {refused}")
    for value in seen["values"]:
        before = "nothing known" if value["previous_state"] is None else value["previous_state"]
        yield plain(f"  {_value(value)}: {before} -> {value['state']}")
    if not seen["values"] and seen["result"] is not None:
        yield f"  {seen['result']}: no value changed"
    for run in seen["runs"]:
        which = "" if run["trigger"] is None else f", trigger {run['trigger'] + 1}"
        yield plain(f"  {at} {run['operation_id']}{_for(run)} runs{which}: {_rendered(run)}")
    for skipped in seen["not_run"]:
        why = f"{skipped['reason']}, {skipped['details']}"
        yield plain(f"  {at} {skipped['operation_id']}{_for(skipped)} does not run: {why}")
    for given_up in seen["given_up"]:
        yield plain(f"  {given_up['operation_id']}{_for(given_up)} waits no longer")
    for waiting in seen["waiting"]:
        until = "" if waiting["until"] is None else f" until {exact_local_time(waiting['until'])}"
        what = f": {waiting['waiting_for']}," if "waiting_for" in waiting else ""
        yield plain(f"  {waiting['operation_id']}{_for(waiting)} waits{(what + until).removesuffix(',')}")


def _rendered(run: Mapping[str, Json]) -> str:
    rendered = run["rendered"]
    if rendered["error"] is not None:
        return f"it fails, {rendered['error']}"
    shown = [
        f"{name} {brief(value)}" for name, value in rendered.items() if name != "error" and value not in (None, [])
    ]
    return f"{run['type']} {', '.join(shown)}"


def _entity(named: Mapping[str, Json]) -> str:
    return str(named.get("object") or named.get("link") or "")


def _for(named: Mapping[str, Json]) -> str:
    entity = _entity(named)
    return f" for {entity}" if entity else ""


def _value(named: Mapping[str, Json]) -> str:
    attribute = named.get("attribute")
    return _entity(named) if attribute is None else f"{_entity(named)}.{attribute}"
