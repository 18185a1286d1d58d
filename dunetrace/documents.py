"""Reads the YAML files that people write beside the settings. Used by `config` alone.

Whatever keeps a file from being read is one line that names the setting, the file and the line in it; what the file
holds is never quoted, as it may be a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from dunetrace.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path


def read(setting: str, named: Path | None, default: Path) -> object:
    """What the file holds that the setting names, or else the one at `default`, if there; None when there is none."""
    path = named or default
    if named is None and not path.exists():
        return None
    try:
        return _parsed(path.read_text("utf-8"))
    except OSError as error:
        raise SettingError(f"{setting}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingError(f"{setting}: {path} is not UTF-8 text") from None
    except _TwiceError as error:
        raise SettingError(f"{setting}: {path} has the same key twice{_line(error)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
        raise SettingError(f"{setting}: {path} is not YAML{_line(error)}") from None


class _TwiceError(yaml.MarkedYAMLError):
    """A key is written twice in one mapping. YAML forbids it; PyYAML would take the last and say nothing."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        written = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in written:
                raise _TwiceError(problem_mark=key.start_mark)
            written.add(key.value)
        return node


def _parsed(text: str) -> object:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" at line {mark.line + 1}" if mark is not None else ""
