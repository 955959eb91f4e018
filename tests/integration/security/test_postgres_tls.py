"""Every connection of ours to a PostgreSQL that demands TLS or a client's certificate; and what is said when it refuses."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import ConfigurationError, FullPassError
from consumer.postgres.database import Database, DatabaseUnavailable, check, refuse_transaction_pooler
from consumer.postgres.migrating import upgrade
from consumer.postgres.wakeups import RUNS_CHANNEL, Wakeups
from tests.integration.security.conftest import Trust
from tests.integration.security.postgres_tls import Address, demanding_tls

ROOT = Path(__file__).parents[3]


def client(trust: Trust) -> dict[str, Any]:
    return {"sslcert": trust.client.certificate, "sslkey": trust.client.key}


def modes(trust: Trust) -> dict[str, dict[str, Any]]:
    """What an address may ask for, and gets."""
    ours = {"sslrootcert": trust.ours.certificate}
    return {
        "require": {"sslmode": "require"},
        "require and vouched for": {"sslmode": "require", **ours},
        "verify-ca under another name": {"sslmode": "verify-ca", "host": "localhost", **ours},
        "verify-full": {"sslmode": "verify-full", **ours},
        "prefer": {"sslmode": "prefer"},
        "nothing said": {},
    }


def test_engine_pooler_check_listener_and_migrations_work_where_tls_is_demanded(trust: Trust, database_url: str) -> None:
    async def main() -> None:
        async with demanding_tls(database_url, trust) as address:
            for parameters in modes(trust).values():
                await use(address.with_parameters(**parameters))
            await migrate(address.with_parameters(sslmode="verify-full", sslrootcert=trust.ours.certificate))

    asyncio.run(main())


def test_a_client_certificate_opens_a_server_that_demands_one(trust: Trust, database_url: str) -> None:
    async def main() -> None:
        async with demanding_tls(database_url, trust, client_certificate=True) as address:
            verify = {"sslmode": "verify-full", "sslrootcert": trust.ours.certificate}
            await use(address.with_parameters(**verify, **client(trust)))
            with pytest.raises(DatabaseUnavailable, match=r"a client's certificate \(sslcert, sslkey\)"):
                await use(address.with_parameters(**verify))
            stranger = {"sslcert": trust.stranger.certificate, "sslkey": trust.stranger.key}
            with pytest.raises(DatabaseUnavailable, match=r"does it know who signed the certificate of sslcert|not available"):
                await use(address.with_parameters(**verify, **stranger))

    asyncio.run(main())


async def use(url: str) -> None:
    """Connect in each way that a worker does."""
    database = Database(url)
    try:
        await refuse_transaction_pooler(url)
        await check(database)
        async with Wakeups.connect(url, 2, (RUNS_CHANNEL,)) as wakeups:
            async with database.transaction() as transaction:
                await transaction.exec_driver_sql(f"NOTIFY {RUNS_CHANNEL}")
            assert await wakeups.wait(10)
    finally:
        await database.close()


async def migrate(url: str) -> None:
    """`db upgrade`'s way, and the `alembic` command's."""
    database = Database(url)
    await upgrade(database)
    await database.close()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alembic", "current", cwd=ROOT, env={**os.environ, "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert "full_pass_0" in said


@pytest.mark.guarantee("G9")
def test_what_does_not_fit_is_told_by_its_parameter_and_waited_for(trust: Trust, database_url: str) -> None:
    """A certificate can be mended on the server while workers wait: refusing it must not end them, as a mistake of ours would."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"sslmode": "disable"}, r"does not let us in: it may demand another user, TLS \(sslmode\)"),
        ({"sslmode": "verify-ca", "sslrootcert": trust.others.certificate}, "that its sslrootcert does not vouch for"),
        ({"sslmode": "verify-full", "sslrootcert": "system"}, "that its sslrootcert does not vouch for"),
        (
            {"host": "localhost", "sslmode": "verify-full", "sslrootcert": trust.ours.certificate},
            r"does not vouch for \(Hostname mismatch",
        ),
    ]
    asyncio.run(refused(trust, database_url, cases, DatabaseUnavailable))


@pytest.mark.guarantee("G9")
def test_a_mistake_of_ours_is_told_by_its_parameter_as_one(
    trust: Trust, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = tmp_path / "text-s3cr3t.pem"
    text.write_text("no certificate")
    locked = trust.ours.sign("locked-for-postgres", passphrase=b"open sesame")
    full = {"sslmode": "verify-full", "sslrootcert": trust.ours.certificate}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"sslmode": "verify-full"}, "sslrootcert has to name who signed its certificate, or 'system'"),
        ({"sslmode": "verify-full", "sslrootcert": tmp_path / "nowhere-s3cr3t"}, "sslrootcert names no readable PEM file"),
        ({"sslmode": "verify-full", "sslrootcert": text}, "sslrootcert names no readable PEM file"),
        ({**full, "sslcert": text, "sslkey": text}, "sslcert or sslkey names no readable PEM file"),
        (
            {**full, "sslcert": trust.client.certificate, "sslkey": tmp_path / "nowhere"},
            "sslcert or sslkey names no readable PEM",
        ),
        ({**full, "sslcert": locked.certificate, "sslkey": locked.key}, "sslcert or sslkey names no readable PEM file"),
        ({"sslmode": "require", "sslrootcert": "system"}, "sslrootcert=system needs sslmode=verify-full"),
    ]
    asyncio.run(refused(trust, database_url, cases, ConfigurationError))


async def refused(trust: Trust, database_url: str, cases: list[tuple[dict[str, Any], str]], kind: type[FullPassError]) -> None:
    async with demanding_tls(database_url, trust) as address:
        for parameters, words in cases:
            url = address.with_parameters(**parameters)
            for connects in (use, listen):
                with pytest.raises(kind, match=words) as caught:
                    await connects(url)
                assert str(caught.value).startswith(("DATABASE_URL: ", "PostgreSQL at DATABASE_URL "))
                assert not [secret for secret in (password_of(address), "s3cr3t") if secret in str(caught.value)]


async def listen(url: str) -> None:
    """The one raw connection."""
    async with Wakeups.connect(url, 2, (RUNS_CHANNEL,)):
        pass


def password_of(address: Address) -> str:
    """The password in an address."""
    return address.url.split("@")[0].rsplit(":", 1)[1]


def test_the_systems_authorities_vouch_for_a_certificate_that_they_signed(
    trust: Trust, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sslrootcert=system`, as hosted databases with a public certificate recommend it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(trust.ours.certificate))

    async def main() -> None:
        async with demanding_tls(database_url, trust) as address:
            await use(address.with_parameters(sslrootcert="system"))
            await use(address.with_parameters(sslmode="verify-full", sslrootcert="system"))
        async with demanding_tls(database_url, trust, client_certificate=True) as address:
            await use(address.with_parameters(sslrootcert="system", **client(trust)))

    asyncio.run(main())
