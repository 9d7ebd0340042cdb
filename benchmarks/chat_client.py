"""Throughput of the chat client against a loopback server, as a fraction of the ideal.

    python -m benchmarks.chat_client [--in-flight 64] [--latency 0.5 1.0] [--characters 100000] [--calls 2000]

The ideal is the calls in flight over the mean latency. Each call has a prompt of its own, so none is stored;
replies go to a response store on disk as they do in a run. Besides the ratio: processor seconds of the client
a call, and the longest time that the event loop was held. With `--fault KIND=SHARE` (see chat_server) the
server fails so often; then the ratio says little, but every call must end answered or with a reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.chat_server import Behaviour, fault_shares, start_chat_server
from longalign_core.chat_client import CallFailedError, ChatClient, ChatRequest, Endpoint, ResponseStore
from longalign_core.records import Message


def request_of(number: int, text: str, language: str) -> ChatRequest:
    """One call about a document of its own."""
    words = "Document {} about nothing. " if language == "en" else "第{}篇文档，什么也没有说。"
    start = words.format(number)
    return ChatRequest(
        model="m",
        messages=(Message(role="user", content=start + text[len(start) :]),),
        temperature=1.0,
        top_p=1.0,
        max_tokens=1024,
        purpose="benchmark",
        shared_characters=len(text),
    )


async def measure(url: str, store: Path, options: argparse.Namespace) -> dict[str, float]:
    """Ask, a few more at a time than may be in flight, as a run does; the figures."""
    latency = sum(options.latency) / 2
    text = ("All of this is about nothing, twice. " if options.language == "en" else "这是一个很长的故事。") * 20000
    text = text[: options.characters]
    numbers = iter(range(options.calls))
    held = 0.0
    came: list[float] = []
    given_up: Counter[str] = Counter()

    async def watch() -> None:
        nonlocal held
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            held = max(held, time.perf_counter() - before - 0.005)

    with ResponseStore(store / "replies.sqlite") as responses:
        client = ChatClient(
            Endpoint(url, "generator"),
            responses,
            max_in_flight=options.in_flight,
            timeout_seconds=options.timeout,
            max_retries=5,
        )
        async with client:

            async def work() -> None:
                for number in numbers:
                    try:
                        await client.ask(request_of(number, text, options.language))
                    except CallFailedError as error:
                        given_up[error.reason] += 1
                    came.append(time.perf_counter())

            # The first calls open connections and load code; the clock starts after them.
            await asyncio.gather(*(client.ask(request_of(-n, text, options.language)) for n in range(1, 9)))
            watching = asyncio.create_task(watch())
            start, cpu_start = time.perf_counter(), time.process_time()
            await asyncio.gather(*(work() for _ in range(2 * options.in_flight)))
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            watching.cancel()
            num_retries = client.num_retries
        assert len(responses) + given_up.total() == options.calls + 8, "a call was lost"
    ideal = options.in_flight / latency
    # Steady state: neither the first round, nor the last, when fewer calls are left than places.
    first, last = 2 * options.in_flight, options.calls - 2 * options.in_flight
    rate = (last - first) / (came[last] - came[first])
    return {
        "calls_per_second": rate,
        "ideal_per_second": ideal,
        "ratio": rate / ideal,
        "ratio_with_ends": options.calls / seconds / ideal,
        "client_cpu_ms_per_call": 1000 * cpu / options.calls,
        "event_loop_held_ms": 1000 * held,
        "num_retries": num_retries,
        **{f"given_up: {reason}": count for reason, count in given_up.items()},
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--latency", type=float, nargs=2, default=(0.5, 1.0), metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--characters", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one reply")
    parser.add_argument("--fault", action="append", default=[], help="KIND=SHARE, again for each kind")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    behaviour = Behaviour(latency=tuple(options.latency), faults=fault_shares(options.fault))
    with start_chat_server(behaviour) as server, tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(server.url, Path(folder), options))
        counts = server.counts()
    mean = counts["busy_seconds"] / counts["answered"]
    print(json.dumps({**figures, "server_seconds_per_call": mean, "peak_in_flight": counts["peak_in_flight"]}))


if __name__ == "__main__":
    main()
