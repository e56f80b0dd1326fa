"""The process beside the host that starts and ends outposts by Ray; nothing else imports ray.

    host ── a line of JSON each way ──► this process (Ray's driver) ── actors ──► nodes
      └───────────────────────── TCP: frames of workers ──────────────────────────►┘

It is a process because Ray ends the driver's process when the head of the cluster is gone, blocks
its loop for most of a second while it connects, and brings threads and a handler of SIGTERM. The
host is spared all that.

1. It is run by its path, so that `Outpost` is a class of `__main__`, which Ray ships by value: a
   node without this package can still say so. So `Outpost` names nothing of this module.
2. The outposts are *detached*: they do not end with this process, but with their host's connection,
   or a minute after their start if no host has come. A launcher may be killed at any time.
3. Only the lines go to standard output; Ray's own output goes to standard error.
4. It ends with its standard input, whatever Ray does, and leaves nothing behind that it started.
5. Calls of Ray that may block, as they ask the head, are made in threads, except for connecting:
   Ray sets its handler of SIGTERM in the main thread only, and the processes of a local Ray die
   with the thread that started them.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

if __name__ == "__main__":  # by its path, so that this package need not be installed
    sys.path.append(str(Path(__file__).parents[2]))
from aioscheduler._outpost import leftovers, raywords

CONNECT_TIME = 25.0  # seconds for Ray to find the cluster
SEND_TIME = 55.0  # … and to send it a folder
ANSWER_TIME = 5.0  # … and for something to listen at its address
WAIT_TIME = 30.0  # seconds between two reports on an outpost that waits for room
END_TIME = 8.0  # seconds for Ray to withdraw all requests
OWN_END_TIME = 2.0  # … and for an outpost to end by itself
NAMESPACE = "aioscheduler"
LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by an outward address


class Outpost:
    """The actor: runs the agent of its node in a thread, and ends its process with it."""

    def __init__(
        self, secret: str, ports: tuple[int, int] | None, code_version: str | None, node: str = ""
    ) -> None:
        self._secret, self._ports, self._code_version = secret, ports, code_version
        self._node = node
        self._listens: Future[tuple[str, int, str]] = Future()
        self._ended = threading.Event()
        self._runs = False
        # Start now and not at the first call: the caller may have ended by then.
        threading.Thread(target=self._live, name="outpost", daemon=True).start()

    def _live(self) -> None:
        try:
            # Not by asyncio.run: Ray sets uvloop's policy, if that is installed.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is reported, and the process ends
            if self._listens.done():
                # To the actor's log; the host notices the end of its connection.
                print(f"the outpost ends by {error!r}", file=sys.stderr, flush=True)
            else:
                self._listens.set_exception(RuntimeError(self._describe(error)))
                time.sleep(30)  # until the launcher has seen it, which then ends this process
        self._ended.set()
        if self._runs:
            time.sleep(30)  # meanwhile Ray ends this process in its own way
        sys.stdout.flush()
        os._exit(0)

    async def _serve(self) -> None:
        import ray  # on the node

        self._node = self._node or ray.util.get_node_ip_address()
        from aioscheduler._outpost import agent, certificates  # the node may not have them

        await agent.serve(
            bytes.fromhex(self._secret),
            self._node,
            self._ports,
            self._code_version and os.environ.get("AIOSCHEDULER_CODE_VERSION"),
            certificates.context(server=True),
            self._listening,
        )

    def _listening(self, host: str, port: int) -> None:
        self._listens.set_result((host, port, self._node))

    def _describe(self, error: BaseException) -> str:
        text = f"on the node {self._node}: {type(error).__name__}: {error}"
        if isinstance(error, ImportError):
            text += (
                " (install it there: pip install aioscheduler[ray]; or have Ray do it: "
                "RayEngine(runtime_env={'pip': ['aioscheduler[ray]']}))"
            )
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            text += (
                f" (none of ports={tuple(self._ports or ())} is free there: give others, or more)"
            )
        return text

    def listen(self) -> tuple[str, int, str]:
        """Return host, port and node, once it listens."""
        return self._listens.result()

    def run(self) -> None:
        """Return at the end of the process, so that the caller notices it."""
        import ray

        self._runs = True
        self._ended.wait()
        ray.actor.exit_actor()  # an end that Ray does not report as an accident


class Refused(Exception):
    """The cluster cannot be used; the text says why, and what to do."""


class Launcher:
    """Ray's driver: it obeys the lines of the host, and reports by lines."""

    def __init__(self, settings: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
        self._settings, self._send = settings, send
        self._manager = settings.get("manager", os.getpid())
        self._wait_time = settings.get("wait_time", WAIT_TIME)
        self._options: dict[str, Any] = pickle.loads(base64.b64decode(settings["options"]))
        self._runtime_env: dict[str, Any] = self._options.pop("runtime_env", {})
        if self.is_local:  # outposts can import all that the host can
            variables = {"PYTHONPATH": ":".join(settings["path"])}
            variables |= self._runtime_env.get("env_vars", {})
            self._runtime_env = {**self._runtime_env, "env_vars": variables}
        sends = {"working_dir", "py_modules"} & self._runtime_env.keys()
        self.connect_time = settings.get("connect_time", SEND_TIME if sends else CONNECT_TIME)
        self._actors: dict[int, Any] = {}
        self._ending: set[int] = set()
        self._serving: dict[int, asyncio.Event] = {}  # set when the outpost has ended
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_local(self) -> bool:
        """Whether Ray is started, and ended, by this process."""
        return bool(self._settings["address"] == "local")

    def connect(self) -> None:
        """Connect to the cluster, or raise `Refused`."""
        try:
            import ray
        except ImportError as error:
            raise Refused(
                f"ray cannot be imported: {error}: pip install aioscheduler[ray]"
            ) from None
        address = self._settings["address"]
        # Removed, as Ray would also read it where we do not want that.
        given = os.environ.pop("RAY_ADDRESS", "")
        address = given or address if address == "auto" else address
        named = f"RAY_ADDRESS={address}" if address == given else f"the address {address!r}"
        if "://" in address:
            raise Refused(f"{named} is an address of Ray Client: give the cluster's host:port")
        if not self.is_local and address != "auto":
            _check_that_something_answers(address, named)
        # For the whole driver: for a single actor Ray sends no folders of this machine.
        more: dict[str, Any] = {"runtime_env": self._runtime_env}
        if self.is_local:
            more |= {"_node_ip_address": LOOPBACK, "include_dashboard": False}
            more |= raywords.room(self._options, self._settings["nodes"])
        try:
            ray.init(address=address, namespace=NAMESPACE, logging_level="error", **more)
        except ConnectionError as error:
            raise Refused(
                f"there is no Ray cluster at {named}: {raywords.line(error)} (start one with "
                '`ray start --head`, give the address of one, or try with address="local")'
            ) from None
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, the host must know
            raise Refused(
                f"Ray cannot be used at {named}: {type(error).__name__}: {raywords.line(error)}"
            ) from None
        self._class = ray.remote(Outpost)
        try:
            self._placed("checked")
        except Exception as error:  # noqa: BLE001 - as above
            raise Refused(
                f"Ray refuses the options: {type(error).__name__}: {raywords.line(error)}"
            ) from None
        if self.is_local:
            leftovers.have_them_end_with_us()

    async def obey(self, lines: asyncio.Queue[str]) -> None:
        """Obey each line, until there are no more."""
        while line := await lines.get():
            order = json.loads(line)
            if "start" in order:
                doing = self._start(order["start"], order["secret"])
            else:
                doing = self._end(order["end"])
            task = asyncio.create_task(doing)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def withdraw(self) -> None:
        """End all outposts, and withdraw those that wait for room."""
        with suppress(TimeoutError):  # Ray's head may be gone; outposts also end with their host
            async with asyncio.timeout(END_TIME):
                await asyncio.gather(*(self._end(number) for number in [*self._actors]))

    async def _start(self, number: int, secret: str) -> None:
        from ray.exceptions import ActorUnavailableError, RayError

        waits: asyncio.Task[None] | None = None
        try:
            # In a thread, as Ray may send a folder of the user's.
            actor = self._actors[number] = await asyncio.to_thread(
                self._placed(self._name(number)).remote,
                secret,
                self._settings["ports"],
                self._settings["code_version"],
            )
            if number in self._ending:
                await self._end(number)
            waits = asyncio.create_task(self._say_that_it_waits(number))
            host, port, node = await actor.listen.remote()
            waits.cancel()
            self._serving[number] = asyncio.Event()
            self._send({"started": number, "host": host, "port": port, "node": node})
            while True:
                try:
                    await actor.run.remote()
                except ActorUnavailableError:  # it is out of reach, but may be alive
                    await asyncio.sleep(1.0)
        except RayError as error:
            # For a failure of our own take its text alone, without Ray's traceback.
            text = raywords.line(getattr(error, "cause", None) or error)
        except Exception as error:  # noqa: BLE001 - as above
            text = f"Ray refuses to start it: {type(error).__name__}: {raywords.line(error)}"
        if waits is not None:
            waits.cancel()
        if (serving := self._serving.pop(number, None)) is not None:
            serving.set()
        self._send({"lost": number, "text": text})
        if number in self._actors:
            await self._end(number)
        self._ending.discard(number)

    async def _end(self, number: int) -> None:
        """End an outpost, if it has not ended, even one of a former launcher."""
        import ray

        self._ending.add(number)
        actor = self._actors.pop(number, None)
        if (serving := self._serving.get(number)) is not None:
            # It ends with its host's connection; if it were killed Ray would report an accident.
            with suppress(TimeoutError):
                await asyncio.wait_for(serving.wait(), OWN_END_TIME)
                return

        def kill() -> None:
            found = actor or ray.get_actor(self._name(number), NAMESPACE)
            ray.kill(found, no_restart=True)

        with suppress(Exception):  # Ray has no such actor, or cannot be asked: it ends by itself
            await asyncio.to_thread(kill)

    async def _say_that_it_waits(self, number: int) -> None:
        import ray

        asked = raywords.asked(self._options)
        while True:
            await asyncio.sleep(self._wait_time)
            try:
                async with asyncio.timeout(END_TIME):
                    has = await asyncio.to_thread(ray.cluster_resources)
                    free = await asyncio.to_thread(ray.available_resources)
                state = raywords.state(has, free)
            except Exception as error:  # noqa: BLE001 - as above
                state = f"the cluster cannot be asked what it has: {error!r}"
            self._send({"waits": number, "text": f"it asks for {asked}; {state}"})

    def _placed(self, name: str) -> Any:
        return self._class.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            max_concurrency=2,
            max_restarts=0,
            max_task_retries=0,
            **self._options,
        )

    def _name(self, number: int) -> str:
        return f"outpost-{self._manager}-{number}"


def _check_that_something_answers(address: str, named: str) -> None:
    """Refuse a dead address at once: Ray itself would try it for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIME).close()
    except (OSError, ValueError) as error:
        raise Refused(
            f"nothing answers at {named}: {error} (is it host:port of the head of a Ray cluster "
            "that is up?)"
        ) from None


def main() -> None:
    """Serve the host until its lines end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host to handle
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    first = sys.stdin.readline()
    if first:
        settings = json.loads(first)["settings"]
        os.chdir(settings["directory"])
        asyncio.run(_live(settings, out))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Ray's exit handlers may wait for ever


async def _live(settings: dict[str, Any], out: TextIO) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()
    connected = threading.Event()
    writing = threading.Lock()

    def send(line: dict[str, Any]) -> None:
        with writing, suppress(OSError):  # the host is gone, and so our input ends
            out.write(json.dumps(line) + "\n")

    def give_up(text: str = "") -> None:
        """Exit, from any thread, whatever Ray is doing."""
        if text:
            send({"refused": text})
        if launcher.is_local:
            leftovers.kill()
        os._exit(1)

    def read() -> None:
        while line := sys.stdin.readline():
            loop.call_soon_threadsafe(lines.put_nowait, line)
        if connected.is_set():
            loop.call_soon_threadsafe(lines.put_nowait, "")
        else:
            give_up()

    launcher = Launcher(settings, send)
    threading.Thread(target=read, daemon=True).start()
    text = (
        f"Ray has not found its cluster (address={settings['address']!r}) in "
        f"{launcher.connect_time:.0f} s: it must be up, and this machine one of its nodes: "
        "`ray start --address=HOST:PORT --num-cpus=0` makes it one"
    )
    watch = threading.Timer(launcher.connect_time, give_up, [text])
    watch.daemon = True
    watch.start()
    try:
        launcher.connect()
    except Refused as error:
        give_up(str(error))
    connected.set()
    watch.cancel()
    send({"up": True})
    await launcher.obey(lines)
    await launcher.withdraw()
    # If Ray does not end in time, exit.
    threading.Timer(END_TIME, give_up).start()
    import ray

    ray.shutdown()
    if launcher.is_local:
        leftovers.kill()


if __name__ == "__main__":
    main()
