"""`trioproxy check` and `example-config`: the configuration, explained."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from trioproxy.commands.output import print_table
from trioproxy.config.example import example_config, show
from trioproxy.config.keys import KeyPath, dotted, field_at, is_secret
from trioproxy.config.loader import Loaded, leaves, load
from trioproxy.errors import ConfigError, ProviderError
from trioproxy.net.certificates import CertificateStore
from trioproxy.providers.routes_file import read_routes
from trioproxy.routing.route import Route


def check(arguments: Namespace) -> int:
    """Print every value and where it comes from. Raises ConfigError when something is wrong."""
    loaded = load(arguments.config, environ=os.environ, overrides=arguments.overrides)
    _check_files(loaded)
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    rows = [
        (dotted(path), _show(path, value), loaded.origins[dotted(path)])
        for path, value in leaves(loaded.config).items()
    ]
    print_table(("KEY", "VALUE", "FROM"), rows)
    return 0


def _check_files(loaded: Loaded) -> None:
    """What the worker would find out when it starts."""
    config = loaded.config
    if config.tls.certificates:
        CertificateStore(config.tls, config.worker.state_dir)
    file = config.providers.file
    if file is not None:
        try:
            read_routes(file.path)
        except ProviderError as error:
            raise ConfigError(str(error).splitlines()) from None


def _show(path: KeyPath, value: Any) -> str:
    if value is None:
        return "-"
    if is_secret(path):
        return "(hidden)"
    if isinstance(value, Route):
        return f"{value.session_id}/{value.service} -> {', '.join(item.id for item in value.backends) or 'nothing'}"
    field = field_at(path)
    return show(field, str(value) if isinstance(value, Path) else value) if field else str(value)


def print_example(_: Namespace) -> int:
    """Print the commented example configuration."""
    sys.stdout.write(example_config())
    return 0
