"""The name of a processor as a folder: vendor, model, microarchitecture, "amd-epyc-zen4".

Figures are kept by it, so two processors that perform differently must not share one. A virtual
machine may hide the model; family and model number then still tell the microarchitecture.
"""

from __future__ import annotations

import functools
import platform
import re
import subprocess
from pathlib import Path

# (first model, last model, microarchitecture), by family, as Linux's arch/x86 tells them apart.
AMD = {
    0x17: ((0x00, 0x2F, "zen"), (0x30, 0x4F, "zen2"), (0x50, 0x5F, "zen"), (0x60, 0xAF, "zen2")),
    0x19: ((0x00, 0x0F, "zen3"), (0x10, 0x1F, "zen4"), (0x20, 0x5F, "zen3"), (0x60, 0xAF, "zen4")),
    0x1A: ((0x00, 0x4F, "zen5"), (0x60, 0x7F, "zen5"), (0x50, 0x5F, "zen6"), (0x90, 0xAF, "zen6")),
}
INTEL = {
    0x3C: "haswell", 0x3F: "haswell", 0x45: "haswell", 0x46: "haswell",
    0x3D: "broadwell", 0x47: "broadwell", 0x4F: "broadwell", 0x56: "broadwell",
    0x4E: "skylake", 0x5E: "skylake", 0x8E: "kabylake", 0x9E: "kabylake", 0xA5: "cometlake",
    0x55: "skylake-sp", 0x6A: "icelake-sp", 0x6C: "icelake-sp", 0x7E: "icelake",
    0x8C: "tigerlake", 0x8D: "tigerlake", 0xA7: "rocketlake", 0x8F: "sapphirerapids",
    0xCF: "emeraldrapids", 0xAD: "graniterapids", 0x97: "alderlake", 0x9A: "alderlake",
    0xB7: "raptorlake", 0xBA: "raptorlake", 0xBF: "raptorlake", 0xAA: "meteorlake",
    0xC5: "arrowlake", 0xC6: "arrowlake", 0xBD: "lunarlake",
}
SKYLAKE_SP = ((0, 4, "skylake-sp"), (5, 7, "cascadelake"), (8, 11, "cooperlake"))  # by stepping
ARM = {
    0xD08: "cortex-a72", 0xD0B: "cortex-a76", 0xD0C: "neoverse-n1", 0xD40: "neoverse-v1",
    0xD49: "neoverse-n2", 0xD4F: "neoverse-v2", 0xD84: "neoverse-v3", 0xD8E: "neoverse-n3",
}
VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel", "0x41": "arm"}
NOISE = r"\((r|tm)\)|@.*|\bw/.*|\bwith\b.*|\d+-core|\b(cpu|processor)\b"


def slug(fields: dict[str, str], fallback: str) -> str:
    """From the first processor's fields of /proc/cpuinfo; `fallback` where they have no name."""
    vendor = fields.get("vendor_id") or fields.get("CPU implementer", "")
    model = re.sub(NOISE, " ", (fields.get("model name") or "").lower()) or fallback.lower()
    if "CPU part" in fields:
        model = "" if "model name" not in fields else model
    words = [VENDORS.get(vendor, vendor), *re.findall("[a-z0-9]+", model.lower())]
    return "-".join(dict.fromkeys([*filter(None, words), _microarchitecture(vendor, fields)]))


def _microarchitecture(vendor: str, fields: dict[str, str]) -> str:
    if "CPU part" in fields:
        part = fields["CPU part"]
        return ARM.get(int(part, 16), f"part-{part}") if vendor == "0x41" else f"part-{part}"
    if "cpu family" not in fields:
        return platform.machine().lower()
    family, model, stepping = (
        int(fields.get(name) or 0) for name in ("cpu family", "model", "stepping"))
    found = None
    if vendor == "AuthenticAMD":
        found = _in_ranges(AMD.get(family, ()), model)
    elif vendor == "GenuineIntel" and family == 6:
        found = _in_ranges(SKYLAKE_SP, stepping) if model == 0x55 else INTEL.get(model)
    return found or f"family-{family}-model-{model}"


def _in_ranges(ranges: tuple, number: int) -> str | None:
    return next((name for first, last, name in ranges if first <= number <= last), None)


def fields_of(cpuinfo: str) -> dict[str, str]:
    """The fields of the first processor."""
    lines = cpuinfo.strip().partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


@functools.cache
def cpuinfo() -> dict[str, str]:
    """The fields of this processor; empty where there is no /proc."""
    try:
        return fields_of(Path("/proc/cpuinfo").read_text())
    except OSError:
        return {}


def name() -> str:
    """The slug of the processor that this runs on."""
    brand = platform.processor()
    if platform.system() == "Darwin":  # where platform.processor() says "arm" of every model
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True)
        brand = done.stdout.strip() or brand
    return slug(cpuinfo(), brand)
