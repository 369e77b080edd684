"""Reads command lines; says everything that goes wrong in one line."""

import importlib.util
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from jaxnlt import method
from jaxnlt.config import base as config_lib
from jaxnlt.config import fields, modules, settle, suggest
from jaxnlt.data import load, registry
from jaxnlt.runtime import console, paths
from jaxnlt.runtime.errors import UserError, logger
from jaxnlt.selection import registry as selectors

# The configuration ----------------------------------------------------------


def _config_folder() -> pathlib.Path:
    """configs/ as shipped: inside an installed package, else beside it."""
    package = pathlib.Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def methods() -> list[str]:
    """Names of the config files, sorted."""
    found = (path.stem for path in _config_folder().glob("*.py"))
    return sorted(name for name in found if not name.startswith("_"))


def config_file(name: str) -> pathlib.Path:
    """Finds the file that --config names.

    Args:
      name: a path; or METHOD or configs/METHOD.py of the shipped ones.

    Returns:
      An existing file.

    Raises:
      UserError: there is none.
    """
    path = paths.expanded(name, "--config")
    if path.suffix != ".py":
        path = path.with_name(f"{path.name}.py") if path.name else path
    places = [path]
    if path.parent == pathlib.Path("."):
        places.append("configs" / path)
    if str(path.parent) in (".", "configs"):
        places.append(_config_folder() / path.name)
    for place in places:
        if os.path.isfile(place):
            return place
    raise UserError(
        f"--config: {name}: no such file; methods are {', '.join(methods())}"
    )


def load_config(name: str, arg: str | None = None) -> ml_collections.ConfigDict:
    """Calls `get_config` of a config file, and imports the method it names.

    Both may import modules from the file's folder and the current one.

    Args:
      name: see `config_file`.
      arg: the text after the colon.

    Returns:
      Its configuration.

    Raises:
      UserError: no such file, or it fails; the line at fault is named.
      config_lib.HelpRequested: `help` stands after the colon.

    Example:
      >>> import jaxnlt
      >>> config = jaxnlt.load_config("dasc", "digits,noise=sym,rate=0.4")
      >>> config.dasc.lambda_u = 25.0
      >>> config.data.noise, config.data.rate
      ('sym', 0.4)
    """
    path = config_file(name)
    spec = importlib.util.spec_from_file_location("jaxnlt_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with modules.search_path(path.parent):
        try:
            spec.loader.exec_module(module)
            config = module.get_config(arg) if arg else module.get_config()
        except (UserError, config_lib.HelpRequested):
            raise
        except Exception as error:
            raise UserError(modules.described(error, path)) from error
        if not isinstance(config, ml_collections.ConfigDict):
            raise UserError(f"{path}: get_config must return a ConfigDict")
        # Once imported it is found again from any folder.
        modules.load_method(config.get("method", ""))
    return config


def with_selector(
    config: ml_collections.ConfigDict, name: str, arg: str | None = None
) -> ml_collections.ConfigDict:
    """Lets a method select as another does, and adds that one's fields.

    Args:
      config: of a two-network method; changed.
      name: of selectors.SELECTORS.
      arg: the text after the colon that made the config.

    Returns:
      The same config, with the selector's fields in `config.NAME`.

    Raises:
      UserError: an unknown name.
    """
    kind: Any = selectors.find(name)
    entry = selectors.SELECTORS[name]
    if entry.method != config.method:
        shared = config_lib.shared_keys(arg)
        source = load_config(entry.config, ",".join([shared, *entry.keys]))
        found = source[modules.options_group(source.method)]
        with config.unlocked():
            config[name] = {
                field: found[field] for field in fields.names(kind.options_type)
            }
    with config.unlocked():
        config.selector = name
    return config


def describe(config: ml_collections.ConfigDict) -> dict[str, fields.FieldHelp]:
    """What every field of a config may hold and what it means.

    Args:
      config: of any method, with another's selector or its own.

    Returns:
      Dotted field names, in the config's order.
    """
    group = modules.options_group(config.method)
    kinds: dict[str, Any] = {group: method.find(config.method).options_type}
    if config.selector:
        kind: Any = selectors.find(config.selector)
        kinds = {config.selector: kind.options_type} | kinds
    known = fields.describe(config_lib.RunOptions)
    for name, options in kinds.items():
        known |= fields.describe(options, f"{name}.")
    unknown = fields.FieldHelp("any", "")
    found = {}
    for field, value in config_lib.flatten(config.to_dict()).items():
        path = field
        while path and path not in known:  # a dict is one field
            path = path.rpartition(".")[0]
        kind, meaning = known.get(path, unknown)
        if kind == "any":
            kind = type(value).__name__
        found[field] = fields.FieldHelp(kind, meaning)
    return found


def take_config(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The value of --config, and argv without it."""
    at = [i for i, a in enumerate(argv) if re.match(r"--?config(=|$)", a)]
    if not at:
        raise UserError(
            "--config: missing; start with --config=configs/dasc.py, or see "
            "--help"
        )
    first = at[0]
    for text in argv[:first]:
        if re.match(r"--?(no)?config\.", text):
            raise UserError(f"{text}: must stand after --config=...")
    if len(at) > 1:
        raise UserError(f"{argv[at[1]]}: --config is given twice")
    _, sign, value = argv[first].partition("=")
    after = first + 1
    if not sign and after < len(argv):
        value, after = argv[after], after + 1
    if not value:
        raise UserError("--config: needs a value, such as configs/dasc.py")
    return value, [*argv[:first], *argv[after:]]


def _check_names(config: ml_collections.ConfigDict, argv: list[str]) -> None:
    """Refuses overrides of what is no field, or follows from --config."""
    known = config_lib.flatten(config.to_dict())
    for text in argv:
        match = re.match(r"--?(?:no)?config\.([^=]*)", text)
        if not match or match[1] in known:
            continue
        path = match[1]
        inside = [name for name in known if name.startswith(f"{path}.")]
        if inside:
            raise UserError(
                f"config.{path}: is a group of fields; set one, such as "
                f"config.{inside[0]}"
            )
        about = {f: entry.meaning for f, entry in describe(config).items()}
        near = suggest.nearest(path, about)
        hint = f", did you mean config.{near}?" if near else ""
        raise UserError(f"config.{path}: no such field{hint}")


def _check_values(before: dict, after: dict) -> None:
    """Refuses what the flags' own parsers let pass."""
    for name in ("method", "benchmark"):
        if after[name] != before[name]:
            raise UserError(
                f"config.{name}: is chosen by --config=configs/METHOD.py:"
                "BENCHMARK, so that its defaults fit"
            )
    for name, value in after.items():
        if isinstance(value, tuple):
            kinds = {type(v) for v in before[name]} or {int, float}
            if not {type(v) for v in value} <= kinds:
                raise UserError(
                    f"config.{name}: expects numbers such as "
                    f"{before[name] or (10, 20)}, is {value}"
                )


def parse(argv: Sequence[str]) -> tuple[ml_collections.ConfigDict, str | None]:
    """Reads the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The resolved configuration and the workdir, None where not given.

    Raises:
      UserError: whatever is wrong with it.
      config_lib.HelpRequested: `help` stands after the colon.
    """
    value, rest = take_config(argv)
    name, colon, arg = value.partition(":")
    config, workdir = _parse(name, arg if colon else None, rest)
    entry = registry.get(config.benchmark)
    if (
        entry.fits
        and config.data.path
        and arg.partition(",")[0] == entry.name
        and not entry.fits(load.read_request(config))
    ):
        logger.info(
            "config.data.path: %s: %s, as by the benchmark %s",
            config.data.path,
            entry.misfit,
            entry.otherwise,
        )
        arg = entry.otherwise + arg.removeprefix(entry.name)
        config, workdir = _parse(name, arg, rest)
    return settle.settled(config), workdir


def _parse(
    name: str, arg: str | None, rest: list[str]
) -> tuple[ml_collections.ConfigDict, str | None]:
    """The config of a file with its argument and overrides, and the workdir."""
    config = load_config(name, arg)
    for text in rest:
        match = re.match(r"--?config\.selector=(.+)", text)
        if match:
            with_selector(config, match[1], arg)
    before = config_lib.flatten(config.to_dict())
    _check_names(config, rest)
    values = flags.FlagValues()
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=rest
        )
    except flags.Error as error:
        raise UserError(f"command line: {console.one_line(error)}") from error
    try:
        console.parse_flags(values, rest)
    except UserError as error:
        unknown = error.__cause__
        if not isinstance(unknown, flags.UnrecognizedFlagError):
            raise
        about = {f"config.{f}": h.meaning for f, h in describe(config).items()}
        near = suggest.nearest(unknown.flagname, {"workdir": ""} | about)
        hint = f", did you mean --{near}?" if near else ""
        raise UserError(f"{error}{hint}") from error
    _check_values(before, config_lib.flatten(config.to_dict()))
    folder = workdir.value and str(paths.expanded(workdir.value, "--workdir"))
    return config, folder
