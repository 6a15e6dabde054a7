"""Reading the configuration: defaults, then a TOML file, then environment variables, then `--set` flags.

Every mistake is reported at once, as one line that names where it was written, the key, its value and
what is allowed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from trioproxy.config.checks import cross_check
from trioproxy.config.keys import KeyPath, dotted, field_at, is_list, wants_text
from trioproxy.config.problems import explain, value_at
from trioproxy.config.schema import Config
from trioproxy.errors import ConfigError

ENV_PREFIX = "TRIOPROXY__"
SEARCHED = (Path("trioproxy.toml"), Path("/etc/trioproxy/config.toml"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration and where each of its values comes from.

    `origins` maps each dotted key ("limits.connections", "listeners.0.bind") to "default", "file:PATH",
    "env:NAME" or "flag". `path` is the file that was read, if any. `warnings` are sentences for the log.
    """

    config: Config
    origins: dict[str, str]
    path: Path | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Override:
    path: KeyPath
    text: str
    origin: str  # as in Loaded.origins
    source: str  # as messages name it


def load(path: Path | None, *, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Read and check the configuration.

    Args:
        path: the file; None looks at `./trioproxy.toml`, then `/etc/trioproxy/config.toml`, and is
            content with neither.
        environ: where `TRIOPROXY__SECTION__KEY` is looked up.
        overrides: `section.key=value`, as given to `--set`. The value is TOML, or else plain text.

    Raises:
        ConfigError: with one line per mistake.
    """
    path = path or _search()
    raw = _read(path) if path else {}
    problems: list[str] = []
    given = [*_from_environ(environ), *_from_flags(overrides, problems)]
    sources: dict[KeyPath, _Override] = {}
    for override in given:
        problem = _put(raw, override)
        if problem:
            problems.append(f"{override.source}: {problem}")
        else:
            sources[override.path] = override
    file = str(path) if path else "the defaults"

    def source_of(place: KeyPath) -> str:
        found = _nearest(place, sources)
        return found.source if found else file

    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(problems + explain(error, raw, source_of)) from None
    checked = cross_check(config)
    problems += [f"{source_of(problem.path)}: {problem.text}" for problem in checked.problems]
    if problems:
        raise ConfigError(problems)
    return Loaded(config, _origins(config, raw, sources, path), path, checked.warnings)


def _search() -> Path | None:
    for path in SEARCHED:
        try:
            if path.is_file():
                return path
        except OSError as error:  # a folder we may not look into: what it says would be missed silently
            raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 (byte {error.start})"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from None


def _from_environ(environ: Mapping[str, str]) -> list[_Override]:
    found: list[_Override] = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            path = _parse_path(name.removeprefix(ENV_PREFIX).lower().split("__"))
            found.append(_Override(path, environ[name], f"env:{name}", name))
    return found


def _from_flags(overrides: Sequence[str], problems: list[str]) -> list[_Override]:
    found: list[_Override] = []
    for item in overrides:
        key, equals, text = item.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            # The text may be a secret whose key was mistyped: only the part before "=" is shown.
            problems.append(f'--set {key}: write --set section.key=value, as in --set log.level="debug"')
            continue
        found.append(_Override(_parse_path(parts), text, "flag", f"--set {key.strip()}"))
    return found


def _parse_path(parts: list[str]) -> KeyPath:
    return tuple(int(part) if part.isdecimal() and len(part) < 4 else part for part in parts)


def _put(raw: dict[str, Any], override: _Override) -> str | None:
    """Write the override into the raw tables; a sentence when there is no place for it."""
    path, place = override.path, cast(Any, raw)
    for index, part in enumerate(path[:-1]):
        below = _step(place, part, path[: index + 1])
        if below is None:
            return f"{dotted(path)} does not name a key"
        place = below
    last = path[-1]
    if isinstance(last, int) or not isinstance(place, dict):
        return f"{dotted(path)} does not name a key; write section.key"
    place[last] = _parse_value(override)
    return None


def _step(place: Any, part: str | int, path: KeyPath) -> Any:
    """What stands at `part`, made when absent; None when nothing can stand there."""
    if isinstance(part, str) and isinstance(place, dict):
        table = cast(dict[str, Any], place)
        if part not in table:
            field = field_at(path)
            # The default is one listener, so that `listeners.0.bind` is about that one.
            many = field is not None and is_list(field.annotation)
            table[part] = [{} for _ in field.get_default() or ()] if many and field else {}
        return table[part]
    if isinstance(part, int) and isinstance(place, list):
        items = cast(list[Any], place)
        if part == len(items):
            items.append({})
        return items[part] if part < len(items) else None
    return None


def _parse_value(override: _Override) -> Any:
    """The value as TOML when it is TOML and the key takes more than text, else the text itself."""
    text = override.text.strip()
    quoted = text[:1] in ('"', "'")
    if wants_text(override.path) and not quoted:
        return override.text
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return override.text
    return parsed["value"] if len(parsed) == 1 else override.text


def _nearest(path: KeyPath, sources: Mapping[KeyPath, _Override]) -> _Override | None:
    """The override that wrote `path`: at it, around it, or else (for a table) inside it."""
    for length in range(len(path), 0, -1):
        if path[:length] in sources:
            return sources[path[:length]]
    return next((item for place, item in sources.items() if path and place[: len(path)] == path), None)


def _origins(
    config: Config, raw: dict[str, Any], sources: Mapping[KeyPath, _Override], path: Path | None
) -> dict[str, str]:
    found: dict[str, str] = {}
    for leaf in leaves(config):
        override = next((sources[leaf[:n]] for n in range(len(leaf), 0, -1) if leaf[:n] in sources), None)
        if value_at(leaf, raw) is None:
            found[dotted(leaf)] = "default"
        else:
            found[dotted(leaf)] = override.origin if override else f"file:{path}"
    return found


def leaves(config: Config) -> dict[KeyPath, Any]:
    """Every key of a configuration that is not itself a table, with its value. Routes count as one value each."""
    found: dict[KeyPath, Any] = {}

    def walk(path: KeyPath, value: Any) -> None:
        if isinstance(value, BaseModel) and path[:1] != ("routes",):
            for name in type(value).model_fields:
                walk((*path, name), getattr(value, name))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(cast(tuple[BaseModel, ...], value)):
                walk((*path, index), item)
        else:
            found[path] = value

    walk((), config)
    return found
