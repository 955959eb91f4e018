"""Kafka ACLs, which aiokafka's administration has no method for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

_RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10, "IdempotentWrite": 12}
_LITERAL, _PREFIXED = 3, 4
_ALLOW = 3


@dataclass(frozen=True)
class Acl:
    """What a user may do to a resource."""

    user: str
    operation: str
    resource: str
    name: str
    prefixed: bool = False


def written_in(document: str) -> list[Acl]:
    """The ACLs that the `kafka-acls.sh` commands of a document add."""
    commands = re.findall(r"^kafka-acls\.sh .*$", document.replace("\\\n", " "), re.MULTILINE)
    return [acl for command in commands for acl in _of_command(command)]


def _of_command(command: str) -> list[Acl]:
    (user,) = re.findall(r"--allow-principal User:(\S+)", command)
    resources = re.findall(r"--(topic|group|transactional-id) (\S+)", command)
    prefixed = "--resource-pattern-type prefixed" in command
    operations = re.findall(r"--operation (\w+)", command)
    return [Acl(user, operation, resource, name, prefixed) for operation in operations for resource, name in resources]


async def allow(bootstrap_servers: str, acls: Sequence[Acl]) -> None:
    """Add ACLs, by a listener whose clients may."""
    await _ask(
        bootstrap_servers,
        [
            CreateAclsRequest(
                _RESOURCES[acl.resource], acl.name, _PREFIXED if acl.prefixed else _LITERAL, f"User:{acl.user}", "*",
                _OPERATIONS[acl.operation], _ALLOW,
            )
            for acl in acls
        ],
    )  # fmt: skip


async def take_back(bootstrap_servers: str, acls: Sequence[Acl]) -> None:
    """Remove ACLs."""
    await _ask(
        bootstrap_servers,
        [
            DeleteAclsRequest(
                _RESOURCES[acl.resource], acl.name, _PREFIXED if acl.prefixed else _LITERAL, f"User:{acl.user}", "*",
                _OPERATIONS[acl.operation], _ALLOW,
            )
            for acl in acls
        ],
    )  # fmt: skip


async def _ask(bootstrap_servers: str, requests: Sequence[CreateAclsRequest | DeleteAclsRequest]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        for request in requests:
            answer = await admin._send_request(request)
            for each in getattr(answer, "creation_responses", None) or answer.filter_responses:
                assert each[0] == 0, each
    finally:
        await admin.close()
