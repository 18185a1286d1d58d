"""Writes docs/detectors.md from the declarations: ``python -m dunetrace.detectors.docs > docs/detectors.md``."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

from dunetrace.detectors.declaration import Detector
from dunetrace.detectors.registry import DETECTORS

_INTRO = """\
# Detectors

Written by `python -m dunetrace.detectors.docs` from the declarations in `dunetrace/detectors/`; edit those.

A detector reads one run, rebuilt from its events, and gives at most one signal. *While it runs* means that it speaks as
soon as it is sure; the others judge a run when it has ended or fallen silent. Confidence lies between 0.5 and 0.99 and
grows with the margin over the threshold. Evidence holds counts, step numbers, ratios, names and digests, never content.

Thresholds are set in `detectors.yml`. An agent's section overrides only what it names:

```yaml
default:
  tool_loop: {threshold: 3, window: 5}
my-agent:
  tool_loop: {threshold: 5, window: 8}
  reasoning_stall: {enabled: false}
```

Every detector also takes `enabled` (true) and `shadow` (false). A shadow signal is stored and shown, never alerted, and
opens no issue; the signals of a run that lost events on the way are shadow too.
"""


def page() -> str:
    """The whole page, in Markdown."""
    head = [_INTRO, "| type | severity | while it runs | section |", "|---|---|---|---|"]
    for detector in DETECTORS:
        early = "yes" if detector.monotone else "no"
        head.append(f"| {detector.failure_type} | {detector.severity} | {early} | `{detector.name}` |")
    return "\n".join([*head, "", *(_section(detector) for detector in DETECTORS)])


def _section(detector: Detector[Any]) -> str:
    lines = [f"## {detector.failure_type}", "", (detector.doc or "").strip(), ""]
    limits = fields(detector.thresholds)
    if limits:
        lines += ["| threshold | default | unit | allowed | where it comes from |", "|---|---|---|---|---|"]
    for entry in limits:
        b = entry.metadata["bounds"]
        or_off = ", or null: off" if b.optional else ""
        lines.append(f"| `{entry.name}` | {entry.default} | {b.unit} | {b.low:g} to {b.high:g}{or_off} | {b.source} |")
    lines += [""] if limits else []
    if detector.yields_to:
        lines += [f"Not said where the run has {' or '.join(detector.yields_to)}.", ""]
    lines += ["Evidence: " + ", ".join(f"`{entry.name}`" for entry in fields(detector.evidence)) + ".", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
