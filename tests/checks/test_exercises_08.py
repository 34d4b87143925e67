"""The exercises of chapter 08: right answers of other kinds pass too, and the traced program does what we say."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from scalelab.checks import CheckFailed
from scalelab.course import Course
from scalelab.exercises.source import ExerciseSet, read_set


@pytest.fixture(scope="module")
def exercises(course: Course) -> ExerciseSet:
    return read_set(course.solutions / "08_asyncio.md")


def run_cells(exercises: ExerciseSet, name: str, answer: str) -> dict[str, Any]:
    """Run the set-up, the answer, and both checks of an exercise; a check that fails raises."""
    exercise = next(exercise for exercise in exercises.exercises if exercise.id == name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate((*exercises.setup, answer, exercise.check, exercise.hidden)):
        exec(compile(source, f"<{name}, cell {number}>", "exec"), namespace)
    return namespace


RIGHT = {
    "turns": {
        "tuples": """
with_task = ("started", "tidy", "B asks", "A asks", "B has it", "B awaited", "A has it", "A awaited")
without_task = ("started", "tidy", "B asks", "B has it", "B awaited", "A asks", "A has it", "A awaited")
""",
    },
    "assemble": {
        "the other function first": '''
program = """
async def fetch_all(urls):
    async with aiohttp.ClientSession() as session:

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fetch(session, url)) for url in urls]
        return [task.result() for task in tasks]

async def fetch(session, url):
    async with session.get(url) as response:
        return await response.json()
"""
''',
    },
    "ordered": {
        "a group": """
async def value(session, url):
    async with session.get(url) as response:
        page = await response.json()
        return page["value"]


async def values(urls):
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(value(session, url)) for url in urls]
    return [task.result() for task in tasks]
""",
        "a tuple": """
async def value(session, url):
    async with session.get(url) as response:
        page = await response.json()
        return page["value"]


async def values(urls):
    async with aiohttp.ClientSession() as session:
        waiting = [value(session, url) for url in urls]
        return tuple(await asyncio.gather(*waiting))
""",
        "as they come, sorted out by url": """
async def value(session, url):
    response = await session.get(url)
    page = await response.json()
    return url, page["value"]


async def values(urls):
    found = {}
    async with aiohttp.ClientSession() as session:
        for answer in asyncio.as_completed([value(session, url) for url in urls]):
            url, number = await answer
            found[url] = number
    return [found[url] for url in urls]
""",
    },
    "bounded": {
        "the connector's limit": """
async def fetch_all(urls, most):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=most)) as session:

        async def fetch(url):
            async with session.get(url) as response:
                return await response.json()

        return await asyncio.gather(*map(fetch, urls))
""",
        "workers and a queue": """
async def fetch_all(urls, most):
    pages = [None] * len(urls)
    queue = asyncio.Queue()
    for each in enumerate(urls):
        queue.put_nowait(each)

    async def worker(session):
        while not queue.empty():
            number, url = queue.get_nowait()
            async with session.get(url) as response:
                pages[number] = await response.json()

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(most):
            group.create_task(worker(session))
    return pages
""",
        "a tuple": """
async def fetch_all(urls, most):
    places = asyncio.Semaphore(most)
    async with aiohttp.ClientSession() as session:

        async def fetch(url):
            async with places, session.get(url) as response:
                return await response.json()

        return tuple(await asyncio.gather(*map(fetch, urls)))
""",
        "wait for the first": """
async def fetch_all(urls, most):
    pages, running = {}, set()
    async with aiohttp.ClientSession() as session:

        async def fetch(url):
            async with session.get(url) as response:
                pages[url] = await response.json()

        for url in urls:
            if len(running) == most:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running.add(asyncio.create_task(fetch(url)))
        await asyncio.gather(*running)
    return [pages[url] for url in urls]
""",
        "acquire and release": """
async def fetch_all(urls, most):
    places = asyncio.Semaphore(most)
    session = aiohttp.ClientSession()

    async def fetch(url):
        await places.acquire()
        try:
            response = await session.get(url)
            return await response.json()
        finally:
            places.release()

    try:
        return await asyncio.gather(*[fetch(url) for url in urls])
    finally:
        await session.close()
""",
    },
    "settled": {
        "gather returns exceptions": """
async def fetch_all(urls):
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        async def fetch(url):
            async with session.get(url) as response:
                return await response.json()

        results = await asyncio.gather(*(fetch(url) for url in urls), return_exceptions=True)
    outcome = dict(zip(urls, results))
    return (
        {url: page for url, page in outcome.items() if not isinstance(page, Exception)},
        {url: error for url, error in outcome.items() if isinstance(error, Exception)},
    )
""",
        "a group, and an error of one's own": """
async def fetch_all(urls):
    pages, failures = {}, {}

    async def fetch(session, url):
        try:
            async with session.get(url) as response:
                if response.status != 200:
                    raise ValueError(response.status)
                pages[url] = await response.json()
        except Exception as error:
            failures[url] = error

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for url in urls:
            group.create_task(fetch(session, url))
    return pages, failures
""",
    },
    "deadline": {
        "wait, then cancel": """
async def fetch_within(urls, seconds):
    async with aiohttp.ClientSession() as session:

        async def fetch(url):
            async with session.get(url) as response:
                return await response.json()

        tasks = {asyncio.create_task(fetch(url)): url for url in urls}
        done, pending = await asyncio.wait(tasks, timeout=seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        pages = {tasks[task]: task.result() for task in done}
    return pages, [url for url in urls if url not in pages]
""",
        "one time-out around a group": """
async def fetch_within(urls, seconds):
    pages = {}
    async with aiohttp.ClientSession() as session:

        async def fetch(url):
            async with session.get(url) as response:
                pages[url] = await response.json()

        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for url in urls:
                    group.create_task(fetch(url))
        except TimeoutError:
            pass
    return pages, [url for url in urls if url not in pages]
""",
        "the client's own time-out": """
async def fetch_within(urls, seconds):
    pages = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session:

        async def fetch(url):
            try:
                async with session.get(url) as response:
                    pages[url] = await response.json()
            except TimeoutError:
                pass

        await asyncio.gather(*(fetch(url) for url in urls))
    return pages, [url for url in urls if url not in pages]
""",
        "wait_for": """
async def fetch_within(urls, seconds):
    async with aiohttp.ClientSession() as session:

        async def fetch(url):
            async with session.get(url) as response:
                return await response.json()

        results = await asyncio.gather(
            *(asyncio.wait_for(fetch(url), seconds) for url in urls), return_exceptions=True
        )
    pages = {url: page for url, page in zip(urls, results) if not isinstance(page, TimeoutError)}
    return pages, [url for url in urls if url not in pages]
""",
    },
    "unblock": {
        "the loop's executor": """
async def thumbnail(session, url):
    async with session.get(url) as response:
        page = await response.json()
    return await asyncio.get_running_loop().run_in_executor(None, shrink, page)


async def thumbnails(urls):
    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(thumbnail(session, url) for url in urls))
""",
        "a tuple": """
async def thumbnail(session, url):
    async with session.get(url) as response:
        return await asyncio.to_thread(shrink, await response.json())


async def thumbnails(urls):
    async with aiohttp.ClientSession() as session:
        return tuple(await asyncio.gather(*(thumbnail(session, url) for url in urls)))
""",
        "a pool of one's own": """
from concurrent.futures import ThreadPoolExecutor


async def thumbnails(urls):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor() as pool:
        async with aiohttp.ClientSession() as session:

            async def thumbnail(url):
                async with session.get(url) as response:
                    page = await response.json()
                return await loop.run_in_executor(pool, shrink, page)

            return await asyncio.gather(*(thumbnail(url) for url in urls))
""",
    },
    "crawler": {
        "workers that wait for the queue": """
async def crawl(start, most):
    seen, titles, failures = {start}, {}, {}
    queue = asyncio.Queue()
    queue.put_nowait(start)

    async def worker(session):
        while True:
            url = await queue.get()
            try:
                async with session.get(url) as response:
                    response.raise_for_status()
                    page = await response.json()
                titles[url] = page["title"]
                asyncio.get_running_loop().call_later(0.1, follow, page)
            except aiohttp.ClientError as error:
                failures[url] = error
                queue.task_done()

    def follow(page):
        for link in page["links"]:
            if link not in seen:
                seen.add(link)
                queue.put_nowait(link)
        queue.task_done()

    async with aiohttp.ClientSession() as session:
        workers = [asyncio.create_task(worker(session)) for _ in range(most)]
        await queue.join()
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return titles, failures
""",
        "gather all the way down": """
async def crawl(start, most):
    places = asyncio.Semaphore(most)
    seen, titles, failures = {start}, {}, {}
    async with aiohttp.ClientSession() as session:

        async def visit(url):
            try:
                async with places:
                    async with session.get(url) as response:
                        response.raise_for_status()
                        page = await response.json()
            except Exception as error:
                failures[url] = error
                return
            titles[url] = page["title"]
            await asyncio.sleep(0.1)
            new = [link for link in dict.fromkeys(page["links"]) if link not in seen]
            seen.update(new)
            await asyncio.gather(*map(visit, new))

        await visit(start)
    return titles, failures
""",
    },
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}: {kind}")
        for name, kinds in RIGHT.items()
        for kind, answer in kinds.items()
    ],
)
def test_other_right_answers_pass(exercises: ExerciseSet, name: str, answer: str) -> None:
    run_cells(exercises, name, answer)


def test_a_thumbnail_of_another_size_fails(exercises: ExerciseSet) -> None:
    answer = """
async def thumbnail(session, url):
    async with session.get(url) as response:
        page = await response.json()
    if "/item/" in url:
        return await asyncio.to_thread(shrink, page)
    return {"path": page["path"], "size": -1}


async def thumbnails(urls):
    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(thumbnail(session, url) for url in urls))
"""
    with pytest.raises(CheckFailed, match="other pages"):
        run_cells(exercises, "unblock", answer)


def test_workers_that_pause_instead_of_asking_fail(exercises: ExerciseSet, capsys: pytest.CaptureFixture[str]) -> None:
    answer = """
async def crawl(start, most):
    seen, titles, failures = {start}, {}, {}
    queue = asyncio.Queue()
    await queue.put(start)

    async def worker(session):
        while True:
            url = await queue.get()
            try:
                async with session.get(url) as response:
                    response.raise_for_status()
                    page = await response.json()
                titles[url] = page["title"]
                await asyncio.sleep(0.1)
                for link in set(page["links"]) - seen:
                    seen.add(link)
                    await queue.put(link)
            except aiohttp.ClientError as error:
                failures[url] = error
            finally:
                queue.task_done()

    async with aiohttp.ClientSession() as session:
        workers = [asyncio.create_task(worker(session)) for _ in range(most)]
        await queue.join()
        for each in workers:
            each.cancel()
    return titles, failures
"""
    with pytest.raises(CheckFailed):
        run_cells(exercises, "crawler", answer)
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✗")]
    assert failed == ["✗ no place stays empty while links may be followed"]


def test_there_is_another_right_answer_to_every_exercise(exercises: ExerciseSet) -> None:
    assert list(RIGHT) == [exercise.id for exercise in exercises.exercises]


def test_the_traced_program_does_what_the_solution_says(exercises: ExerciseSet) -> None:
    (turns,) = (exercise for exercise in exercises.exercises if exercise.id == "turns")
    found = re.search(r"```python\n(.*?)```", turns.prompt, re.DOTALL)
    assert found is not None
    with_task = found.group(1)
    without_task = with_task.replace('asyncio.create_task(fetch("A", 0.2))', 'fetch("A", 0.2)')
    assert without_task != with_task
    said: dict[str, list[str]] = {}
    exec(turns.solution, said)
    for name, program in {"with_task": with_task, "without_task": without_task}.items():
        namespace: dict[str, Any] = {"asyncio": asyncio}
        exec(program, namespace)
        asyncio.run(namespace["main"]())
        assert namespace["log"] == said[name]
