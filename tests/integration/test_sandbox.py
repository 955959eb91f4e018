"""The local servers: what they keep, how they are found again, and that they end nobody but themselves."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

import sandbox
from sandbox.errors import SandboxError
from sandbox.kafka import KafkaServer
from sandbox.postgres import PostgresServer
from sandbox.servers import Sandbox

STARTER = """
import sys
from pathlib import Path
from sandbox.postgres import PostgresServer
server = PostgresServer(Path(sys.argv[1]))
server.start(detached=sys.argv[2] == "detached")
print(server.pid, flush=True)
sys.stdin.read()
"""


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


@contextmanager
def sleeper(*, as_postgres_user: bool = False) -> Iterator[psutil.Process]:
    """A process that has nothing to do with the sandbox, such as one that was given a dead server's pid."""
    command = ["/bin/sleep", "120"]
    if as_postgres_user and psutil.Process().uids().effective == 0:
        command = [sys.executable, str(Path(sandbox.__file__).with_name("unprivileged.py")), *command]
    with subprocess.Popen(command) as started:
        yield psutil.Process(started.pid)
        started.kill()


def test_what_postgres_committed_is_there_after_sigkill_on_the_same_port(own_postgres: PostgresServer) -> None:
    own_postgres.create_database("kept")
    own_postgres.run_sql("CREATE TABLE facts AS SELECT 42 AS answer", "kept")
    port = own_postgres.port

    own_postgres.kill()
    assert not own_postgres.running
    own_postgres.start()

    assert own_postgres.run_sql("SELECT answer FROM facts", "kept") == "42"
    assert own_postgres.port == port


@pytest.mark.parametrize("form", ["url", "socket_url"])
def test_postgres_takes_its_password_by_tcp_and_by_socket_and_no_other(postgres: PostgresServer, form: str) -> None:
    url = getattr(postgres, form)()

    async def version(dsn: str) -> int:
        connection = await asyncpg.connect(dsn)
        try:
            return int(connection.get_server_version().major)
        finally:
            await connection.close()

    assert asyncio.run(version(url)) == 18
    password = url.split(":")[2].split("@")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(version(url.replace(password, "another")))


def test_postgres_syncs_its_commits_as_in_production(postgres: PostgresServer) -> None:
    """Tests kill it and count on what was committed."""
    assert postgres.run_sql("SELECT current_setting('fsync'), current_setting('synchronous_commit')") == "on|on"


def test_a_read_committed_reader_of_kafka_sees_committed_transactions_alone_also_after_sigkill(
    own_kafka: KafkaServer,
) -> None:
    asyncio.run(_create_topic(own_kafka, "events"))
    asyncio.run(_send_in_transaction(own_kafka, "events", b"committed", commit=True))
    asyncio.run(_send_in_transaction(own_kafka, "events", b"aborted", commit=False))

    own_kafka.kill()
    own_kafka.start()
    asyncio.run(_send_in_transaction(own_kafka, "events", b"after the crash", commit=True))

    assert asyncio.run(_read_committed(own_kafka, "events", 2)) == [b"committed", b"after the crash"]


def test_kafka_makes_no_topic_by_being_written_to(kafka: KafkaServer, topic_prefix: str) -> None:
    """A service that forgot `topics create` has to notice."""
    with pytest.raises(KafkaError):
        asyncio.run(_send_in_transaction(kafka, f"{topic_prefix}missing", b"lost", commit=True))
    assert f"{topic_prefix}missing" not in asyncio.run(_topics(kafka))


def test_a_frozen_server_keeps_its_connections_and_answers_when_thawed(own_postgres: PostgresServer) -> None:
    async def scenario() -> int:
        connection = await asyncpg.connect(own_postgres.url())
        try:
            own_postgres.freeze()
            with pytest.raises(TimeoutError):
                await connection.fetchval("SELECT 1", timeout=0.2)
        finally:
            own_postgres.thaw()
            connection.terminate()
        again = await asyncpg.connect(own_postgres.url())
        try:
            return int(await again.fetchval("SELECT 2"))
        finally:
            await again.close()

    assert asyncio.run(scenario()) == 2


def test_a_frozen_server_can_be_stopped_in_good_order(own_postgres: PostgresServer) -> None:
    own_postgres.freeze()
    own_postgres.stop()
    assert not own_postgres.running
    assert "database system is shut down" in own_postgres.log.read_text()


def test_a_second_object_on_the_same_folder_finds_the_same_server(own_postgres: PostgresServer) -> None:
    again = PostgresServer(own_postgres.folder)
    again.start()
    assert again.pid == own_postgres.pid
    assert again.url() == own_postgres.url()


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    with _started_elsewhere(tmp_path, "leashed") as (holder, server):
        holder.kill()
        wait_for(lambda: not server.is_running())


def test_a_detached_server_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    with _started_elsewhere(tmp_path, "detached") as (holder, server):
        assert psutil.Process(holder.pid).children() == [server], "a watcher would end it"
        holder.kill()
        holder.wait()
        found = PostgresServer(tmp_path / "postgres")
        assert found.pid == server.pid
        found.stop()
        assert not server.is_running()


def test_a_process_that_was_given_a_dead_servers_pid_is_not_ended(own_postgres: PostgresServer) -> None:
    own_postgres.kill()
    record = own_postgres.folder / "server.json"
    with sleeper() as stranger:
        noted = json.loads(record.read_text())
        noted["process"] = {"pid": stranger.pid, "started_at": stranger.create_time()}
        record.write_text(json.dumps(noted))

        assert not own_postgres.running
        own_postgres.stop()
        own_postgres.kill()

        assert stranger.is_running()
        assert stranger.status() != psutil.STATUS_ZOMBIE


def test_a_process_with_our_command_line_that_started_at_another_time_is_not_taken_for_the_server(
    own_postgres: PostgresServer,
) -> None:
    record = own_postgres.folder / "server.json"
    before = record.read_text()
    noted = json.loads(before)
    noted["process"]["started_at"] -= 60
    record.write_text(json.dumps(noted))
    assert not own_postgres.running
    record.write_text(before)
    assert own_postgres.running


def test_postgres_starts_although_another_program_has_its_dead_servers_pid(own_postgres: PostgresServer) -> None:
    pid_file = own_postgres.folder / "data" / "postmaster.pid"
    own_postgres.kill()
    with sleeper(as_postgres_user=True) as stranger:
        wait_for(lambda: "sleep" in stranger.name())
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:], ""]))
        own_postgres.start()
        assert stranger.is_running()
    assert own_postgres.run_sql("SELECT 1") == "1"


def test_a_failed_start_of_postgres_shows_what_it_said(own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    with (own_postgres.folder / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(SandboxError, match=r"PostgreSQL ended at its start[\s\S]*no_such_setting"):
        own_postgres.start()
    assert not own_postgres.running


def test_a_failed_start_of_kafka_shows_what_it_said(own_kafka: KafkaServer) -> None:
    own_kafka.stop()
    properties = own_kafka.folder / "data" / "meta.properties"
    properties.write_text(properties.read_text().replace("node.id=1", "node.id=2"))
    with pytest.raises(SandboxError, match=r"Kafka ended at its start[\s\S]*node ?id"):
        own_kafka.start()


def test_a_port_that_was_asked_for_and_is_taken_is_named(postgres: PostgresServer, tmp_path: Path) -> None:
    late = PostgresServer(tmp_path / "postgres", port=postgres.port)
    with pytest.raises(SandboxError, match=f"Address already in use[\\s\\S]*{postgres.port}"):
        late.start()
    late.remove()


def test_a_first_start_whose_port_is_taken_meanwhile_takes_another(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([postgres.port, postgres.port + 1, postgres.port + 2])
    monkeypatch.setattr("sandbox.server.free_port", lambda: next(ports))
    with PostgresServer(tmp_path / "postgres") as late:
        assert late.port != postgres.port
    late.remove()


def test_two_sandboxes_live_side_by_side_and_each_comes_up_once(tmp_path: Path) -> None:
    """Up again is the same environment and the same processes; after a crash the old data and port; down ends all."""
    one = Sandbox(tmp_path / "one", environment={})
    other = Sandbox(tmp_path / "other", environment={"KAFKA_BOOTSTRAP_SERVERS": "the user's own"}, detached=False)
    try:
        environment = one.up()
        assert set(environment) == {
            "KAFKA_BOOTSTRAP_SERVERS",
            "DATABASE_URL",
            "EXPORT_STORE_URL",
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "FULL_PASS_HTTP_PORT",
        }
        assert environment["DATABASE_URL"].endswith("/full_pass")
        postgres = PostgresServer(tmp_path / "one" / "postgres")
        postgres.create_database("kept")
        assert not set(environment.values()) & set(other.up().values()) - {"sandbox", "0"}

        pids = _pids(tmp_path / "one")
        assert Sandbox(tmp_path / "one", environment={}).up() == environment
        assert _pids(tmp_path / "one") == pids

        postgres.kill()
        assert Sandbox(tmp_path / "one", environment={}).up() == environment
        assert {**_pids(tmp_path / "one"), "postgres": 0} == {**pids, "postgres": 0}
        assert postgres.run_sql("SELECT 1", "kept") == "1"

        Sandbox(tmp_path / "one", environment={}).down()
        assert not any(psutil.pid_exists(pid) for pid in _pids(tmp_path / "one").values())
        assert all(psutil.pid_exists(pid) for pid in _pids(tmp_path / "other").values())
    finally:
        one.wipe()
        other.wipe()
    assert list(tmp_path.iterdir()) == []


def test_what_the_environment_names_is_not_started(tmp_path: Path) -> None:
    names = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "ANTHROPIC_BASE_URL", "EXPORT_STORE_URL")
    ours = Sandbox(tmp_path / "box", environment=dict.fromkeys(names, "the user's own"))
    assert ours.up() == {"FULL_PASS_HTTP_PORT": "0"}
    assert list((tmp_path / "box").glob("*/server.json")) == []


def test_what_an_earlier_up_printed_is_not_taken_for_the_users_own(tmp_path: Path) -> None:
    """People paste it into their shell, and come back after a restart of the machine."""
    kafka_elsewhere = {"KAFKA_BOOTSTRAP_SERVERS": "the user's own"}
    box = Sandbox(tmp_path / "box", environment=kafka_elsewhere)
    printed = box.up()
    box.down()
    try:
        assert Sandbox(tmp_path / "box", environment={**kafka_elsewhere, **printed}).up() == printed
        assert PostgresServer(tmp_path / "box" / "postgres").running
    finally:
        box.wipe()


def test_a_sandbox_that_can_not_come_up_ends_what_it_had_started(tmp_path: Path) -> None:
    only_two = Sandbox(tmp_path / "box", environment={"KAFKA_BOOTSTRAP_SERVERS": "the user's own"})
    only_two.up()
    only_two.down()
    with (tmp_path / "box" / "postgres" / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(SandboxError, match="no_such_setting"):
        only_two.up()
    assert not any(psutil.pid_exists(pid) for pid in _pids(tmp_path / "box").values())
    only_two.wipe()


def test_a_folder_that_is_no_sandboxs_is_never_wiped(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    Sandbox(tmp_path, environment={}).wipe()
    assert (tmp_path / "kafka").exists()


def test_the_sandbox_brings_up_a_stand_in_that_answers(tmp_path: Path) -> None:
    environment = {"KAFKA_BOOTSTRAP_SERVERS": "the user's own", "DATABASE_URL": "the user's own"}
    box = Sandbox(tmp_path / "box", environment=environment, detached=False)
    with box as found:
        request = urllib.request.Request(f"{found['ANTHROPIC_BASE_URL']}/v1/messages", data=b"{}", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        with refused.value as answer:
            assert json.loads(answer.read())["type"] == "error"
    box.wipe()


@contextmanager
def _started_elsewhere(folder: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A server that another process has started, and that process."""
    command = [sys.executable, "-c", STARTER, str(folder / "postgres"), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            yield holder, psutil.Process(int(holder.stdout.readline()))
        finally:
            holder.send_signal(signal.SIGKILL)
            PostgresServer(folder / "postgres").remove()


def _pids(folder: Path) -> dict[str, int]:
    return {path.parent.name: json.loads(path.read_text())["process"]["pid"] for path in folder.glob("*/server.json")}


@asynccontextmanager
async def _admin(server: KafkaServer) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _create_topic(server: KafkaServer, topic: str) -> None:
    async with _admin(server) as admin:
        await admin.create_topics([NewTopic(topic, 1, 1)])


async def _topics(server: KafkaServer) -> list[str]:
    async with _admin(server) as admin:
        return list(await admin.list_topics())


async def _send_in_transaction(server: KafkaServer, topic: str, value: bytes, *, commit: bool) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=server.bootstrap_servers, transactional_id="test", request_timeout_ms=3_000
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, value)
        await (producer.commit_transaction() if commit else producer.abort_transaction())


async def _read_committed(server: KafkaServer, topic: str, count: int) -> list[bytes]:
    """The first records of a topic, and whatever else its reader was given with them."""
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=server.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        group_id=None,
    ) as consumer:
        values: list[bytes] = []
        async with asyncio.timeout(20):
            while len(values) < count:
                batches = await consumer.getmany(timeout_ms=500)
                values += [record.value for records in batches.values() for record in records]
        return values
