"""Runs the code of suggested fixes, so that tests can ask whether it does what its description says."""

from __future__ import annotations

import re
from typing import Any

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.explain import explain
from tests.detection.cases import CASES


def fix_of(name: str, defines: str, kind: str = "") -> Any:
    """What the Python fix that defines `defines` made of it, for the case of detector `name`."""
    case = CASES[name]
    (signal,) = judge(case.run(case.kinds[kind] if kind else case.fires), DEFAULT.default, Phase.ENDED)
    (code,) = [f.code for f in explain(signal).suggested_fixes if re.search(rf"\b(class|def) {defines}\b", f.code)]
    names: dict[str, Any] = {"__name__": "fix"}
    exec(compile(code, "fix", "exec"), names)
    return names[defines]
