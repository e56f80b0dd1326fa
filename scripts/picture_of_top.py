"""Draw docs/images/top.svg: `aioscheduler top` of two real programs, after some seconds of load.

    python picture_of_top.py [--seconds 40] [--width 120]

A bot that answers in bursts, and a crawler that also computes; one of its workers is killed
halfway. No figure in the picture is invented, and the file loads nothing when it is shown.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from aioscheduler._monitoring.statsserver import snapshots
from aioscheduler.top.rates import Rates
from aioscheduler.top.sampling import Sample, take_sample
from aioscheduler.top.table import View, draw

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "top.svg"
FONTS = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
DARK = TerminalTheme(
    background=(24, 26, 33),
    foreground=(205, 209, 218),
    normal=[
        (24, 26, 33),  # black
        (240, 96, 104),  # red
        (122, 199, 116),  # green
        (233, 190, 92),  # yellow
        (97, 160, 240),  # blue
        (198, 134, 224),  # magenta
        (86, 194, 208),  # cyan
        (205, 209, 218),  # white
    ],
    bright=[
        (104, 111, 126),
        (255, 123, 130),
        (150, 222, 143),
        (250, 211, 120),
        (130, 183, 255),
        (216, 160, 240),
        (116, 216, 228),
        (255, 255, 255),
    ],
)

BOT = """
import asyncio, math, random, time
from datetime import timedelta
from aioscheduler import Manager

async def remind(user):
    await asyncio.sleep(0.005)
    sum(range(3000))  # some work

async def main():
    async with Manager(workers=2, monitor=True) as manager:
        for user in range(400_000):
            manager.schedule(remind(user), timedelta(days=1 + random.random()))
            if user % 1000 == 0:
                await manager.flush()
        while True:
            for user in range(int(180 + 120 * math.sin(time.monotonic() / 2))):
                manager.schedule(remind(user), timedelta(seconds=random.random()))
            await asyncio.sleep(0.05)

asyncio.run(main())
"""
CRAWLER = """
import asyncio, random, time
from datetime import timedelta
from aioscheduler import Manager

async def fetch(page):
    await asyncio.sleep(0.02)
    if random.random() < 0.002:
        raise ConnectionError(page)

async def parse(page):
    end = time.perf_counter() + random.uniform(0.001, 0.018)
    while time.perf_counter() < end:
        pass

async def main():
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with Manager(workers=3, monitor=True) as manager:
        page = 0
        while True:
            page += 1
            manager.schedule(fetch(page), timedelta(seconds=random.random()))
            if page % 5 == 0:
                manager.schedule(parse(page), timedelta(seconds=random.random()), key="parser")
            await asyncio.sleep(random.expovariate(500))

asyncio.run(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--width", type=int, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # A separate folder of sockets keeps other managers of this user out of the picture.
        tempfile.tempdir = os.environ["TMPDIR"] = os.environ["XDG_RUNTIME_DIR"] = folder
        programs = [start(Path(folder, name), text) for name, text in PROGRAMS.items()]
        try:
            sample, rates = look(options.seconds)
        finally:
            for program in programs:
                program.terminate()
            for program in programs:
                program.wait()
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(sample, rates, options.width))
    print(PICTURE)


PROGRAMS = {"bot.py": BOT, "crawler.py": CRAWLER}


def start(path: Path, text: str) -> subprocess.Popen[bytes]:
    path.write_text(text)
    return subprocess.Popen([sys.executable, str(path)], stderr=subprocess.DEVNULL)


def look(seconds: float) -> tuple[Sample, Rates]:
    """Take samples for some seconds, and return the last."""
    while len(snapshots()) < len(PROGRAMS):
        time.sleep(0.1)
    rates = Rates()
    killed = False
    begin = time.monotonic()
    while True:
        sample = take_sample()
        rates.add(sample.at, sample.snapshots)
        left = begin + seconds - time.monotonic()
        if left < 0:
            return sample, rates
        if left < seconds / 2 and not killed:
            killed = True
            kill_one(sample)
        time.sleep(1)


def kill_one(sample: Sample) -> None:
    """Kill the first worker of the crawler."""
    for pid, _, stats in sample.snapshots:
        if stats is not None and sample.programs.get(pid) == "crawler.py":
            os.kill(stats["workers"][0]["pid"], 9)


def picture(sample: Sample, rates: Rates, width: int) -> str:
    """Return the picture as SVG."""
    console = Console(
        width=width, file=io.StringIO(), record=True, force_terminal=True, color_system="standard"
    )
    view = View("lateness", clock=time.strftime("%H:%M:%S"))
    console.print(draw(sample.snapshots, rates, view, width, programs=sample.programs))
    plain = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    plain = re.sub(r" *<!--.*?-->\n", "", plain).replace("Fira Code, monospace", FONTS)
    # Make every program that shows it keep leading blanks.
    plain = plain.replace("<svg ", '<svg xml:space="preserve" ', 1)
    svg = console.export_svg(title="aioscheduler top", theme=DARK, code_format=plain)
    addresses = set(re.findall(r"https?://[^\"' ]+|url\((?!#)[^)]*\)", svg))
    assert addresses == {"http://www.w3.org/2000/svg"}, addresses
    return svg


if __name__ == "__main__":
    main()
