"""What stands in a log line, and what never does (guarantee G9)."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from consumer.errors import CommandError
from consumer.logs import configure_logs, describe, get_log, places


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is one for the whole process: give it back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def choke() -> None:
    """Fail as a driver does, which quotes what it was given."""
    try:
        dict[str, int]()["dear diary"]
    except KeyError as cause:
        raise ValueError("dear diary") from cause


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_a_json_object_on_stderr_with_time_level_room_and_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO", "json")
    with structlog.contextvars.bound_contextvars(run_id="r", stage="facts"):
        get_log("executor").info("run_claimed", failures=2)
    [line] = lines(capsys)
    assert str(line.pop("at")).endswith("Z")
    assert line == {"event": "run_claimed", "level": "info", "room": "executor", "failures": 2, "run_id": "r", "stage": "facts"}


def test_the_level_holds_back_what_is_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("WARNING", "json")
    get_log("x").info("quiet")
    get_log("x").warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("how", ["exception", "exc_info object", "exc_info tuple", "another library"])
def test_an_exception_is_told_by_its_type_and_place_and_never_by_its_words(capsys: pytest.CaptureFixture[str], how: str) -> None:
    configure_logs("INFO", "json")
    log = get_log("x")
    try:
        choke()
    except ValueError as error:
        if how == "exception":
            log.exception("surprised")
        elif how == "exc_info object":
            log.warning("surprised", exc_info=error)
        elif how == "exc_info tuple":
            log.warning("surprised", exc_info=(type(error), error, error.__traceback__))
        else:
            logging.getLogger("aiokafka").exception("surprised")
    [line] = lines(capsys)
    assert "diary" not in json.dumps(line)
    assert line["error"] == "builtins.ValueError"
    trace = line["traceback"]
    assert isinstance(trace, list)
    assert "test_logs.py" in trace[0]
    assert trace[1].endswith(" choke")
    assert "caused by: builtins.KeyError" in trace


def test_the_words_of_our_own_errors_are_kept() -> None:
    """They are written to be published."""
    assert describe(CommandError("there is no run 7")) == "CommandError: there is no run 7"


def test_the_members_of_a_group_are_named_with_their_places() -> None:
    found = places(ExceptionGroup("dear diary", [OSError("dear diary"), CommandError("ours")]))
    assert "in group: builtins.OSError" in found
    assert "in group: CommandError: ours" in found
    assert not any("diary" in place for place in found)


@pytest.mark.guarantee("G9")
def test_a_library_that_quotes_what_it_choked_on_is_heard_from_warnings_up_only(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("DEBUG", "json")
    logging.getLogger("sqlalchemy.engine").info("INSERT … 'dear diary'")
    logging.getLogger("httpx").debug("dear diary")
    assert lines(capsys) == []


@pytest.mark.guarantee("G9")
def test_what_asyncio_says_of_a_task_that_nobody_asked_names_the_place_and_quotes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail() -> None:
        choke()

    configure_logs("INFO", "json")
    loop = asyncio.new_event_loop()
    task = loop.create_task(fail())
    loop.run_until_complete(asyncio.wait({task}))
    del task  # the loop is told of the exception when the task goes
    loop.close()
    gc.collect()
    [line] = lines(capsys)
    assert line["event"] == "Task exception was never retrieved"
    assert line["error"] == "builtins.ValueError"
    assert "diary" not in json.dumps(line)


def test_lines_for_a_terminal_are_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO", "console")
    get_log("x").info("run_claimed", failures=2)
    said = capsys.readouterr().err
    assert "run_claimed" in said
    assert not said.startswith("{")


def test_without_a_format_a_pipe_gets_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO", None)
    get_log("x").info("hello")
    assert lines(capsys)[0]["event"] == "hello"
