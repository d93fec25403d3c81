"""The yardstick: a bare aiomqtt client that answers each state change with a message, many at once, keeping nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys

import aiomqtt
import uvloop

AT_ONCE = 400


async def echo(port: int) -> None:
    """Publish on out/dev<i> what comes on state/dev<i>, for ever."""
    logging.getLogger("mqtt").setLevel(logging.ERROR)
    async with aiomqtt.Client(
        "127.0.0.1",
        port,
        protocol=aiomqtt.ProtocolVersion.V5,
        identifier="echo",
        max_inflight_messages=AT_ONCE,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    ) as client:
        client.pending_calls_threshold = AT_ONCE * 2
        room = asyncio.Semaphore(AT_ONCE)
        answering: set[asyncio.Task[None]] = set()

        async def answer(message: aiomqtt.Message) -> None:
            try:
                state = json.loads(bytes(message.payload))
                topic = message.topic.value.replace("state/", "out/")
                await client.publish(topic, json.dumps({"n": state["n"], "t": state["t"]}), qos=1)
            finally:
                room.release()

        await client.subscribe("state/+", qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            await room.acquire()
            task = asyncio.create_task(answer(message))
            answering.add(task)
            task.add_done_callback(answering.discard)


if __name__ == "__main__":
    uvloop.run(echo(int(sys.argv[1])))
