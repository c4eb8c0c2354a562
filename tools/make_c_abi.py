"""Write tests/fixtures/c_abi.json: what gru_c.h and gru_c.cython_gru promise to compiled programs.

    python tools/make_c_abi.py                      write the file, if things were only added
    python tools/make_c_abi.py --check              compare; 1 if the file is not up to date

What is in the file never changes; see docs/embedding.md. tests/test_c_abi.py compares. To add:

a function        the last of GRU_FUNCTIONS_OF_BOTH in gru_c.h, or for float and double a new list,
                  the last of GRU_ALL_FUNCTIONS; then cython_gru.pxd, _core/surface/functions.pxi
an option         the last member of gru_options, in gru_c.h and cython_gru.pxd; it makes the struct
                  longer, and zero means what was done without it
a status or name  the last of its enum, in gru_c.h and cython_gru.pxd
"""

import argparse
import json
import re
import sys
from pathlib import Path

import gru_c
from gru_c import cython_gru

FILE = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "c_abi.json"
FUNCTION = r"F\((\w+)(?:##T)?, \(((?:[^()]|\([^()]*\))*?)\)\)"


def header() -> str:
    """gru_c.h without comments and with single spaces."""
    text = (Path(gru_c.get_include()) / "gru_c.h").read_text()
    return re.sub(r"[ \t]+", " ", re.sub(r"/\*.*?\*/", "", text, flags=re.S).replace("\\\n", " "))


def prototypes(text: str) -> dict[str, str]:
    """The arguments of each function of the table, in its order."""
    lists = dict(re.findall(r"#define (GRU_FUNCTIONS\w*)\(.*?\) (.*)", text))
    every = re.findall(r"#define GRU_ALL_FUNCTIONS\(F\) (.*)", text)[0]
    found = {}
    for name, suffix, real in re.findall(r"(GRU_FUNCTIONS\w*)\(F(?:, (\w+), (\w+))?\)", every):
        for function, arguments in re.findall(FUNCTION, lists[name]):
            found[function + suffix] = re.sub(r"\bREAL\b", real, arguments)
    return found


def table(text: str) -> list[str]:
    """The members of gru_api."""
    first = text.partition("typedef struct gru_api {")[2].partition("#define")[0]
    return [*(member.strip() for member in first.split(";")[:-1]),
            *(f"int {name}({arguments})" for name, arguments in prototypes(text).items())]


def enums(text: str) -> dict[str, list[str]]:
    """Names and values of each enum."""
    api = gru_c.ctypes_api()
    return {enum: [f"{name} = {getattr(api, name)}" for name in re.findall(r"\bGRU_\w+", body)]
            for enum, body in re.findall(r"\benum (\w+) \{(.*?)\}", text, re.S)}


def options(text: str) -> dict:
    """The size of gru_options, and its members, with offsets and sizes."""
    body = text.partition("typedef struct gru_options {")[2].partition("}")[0]
    structure, members = gru_c.ctypes_api().Options, []
    for declaration in body.split(";")[:-1]:
        kind, names = re.fullmatch(r"\s*(.*?)(\w+(?:, \w+)*)", declaration).groups()
        for name in names.split(", "):
            place = getattr(structure, name)
            members.append(f"{place.offset}: {kind}{name} ({place.size} bytes)")
    return {"size": structure().struct_size, "members": members}


def snapshot() -> dict:
    """What there is now."""
    text = header()
    return {
        "abi_version": gru_c.ctypes_api().GRU_ABI_VERSION,
        "options": options(text),
        "enums": enums(text),
        "table": table(text),
        "exports": {name: signature for name, (_, signature) in cython_gru.entries().items()},
    }


def problems(old: dict, new: dict) -> list[str]:
    """What is not only added."""
    found = []
    if new["abi_version"] != old["abi_version"]:
        found.append(f"GRU_ABI_VERSION {new['abi_version']}, was {old['abi_version']}")
    found += not_the_same("table", old["table"], new["table"])
    for name, items in old["enums"].items():
        found += not_the_same(name, items, new["enums"].get(name, []))
    found += [f"{name}: {new['exports'].get(name, 'missing')}, was {signature}"
              for name, signature in old["exports"].items()
              if new["exports"].get(name) != signature]
    size, old_size = new["options"]["size"], old["options"]["size"]
    members, old_members = new["options"]["members"], old["options"]["members"]
    found += not_the_same("gru_options", old_members, members)
    if (len(members) > len(old_members)) != (size > old_size):
        found.append(f"gru_options: {len(members)} members of {size} bytes, was {len(old_members)} "
                     f"of {old_size}: struct_size must tell which there are")
    return found


def not_the_same(where: str, old: list, new: list) -> list[str]:
    """Where `new` does not begin as `old` is."""
    new = [*new, *["missing"] * len(old)]
    return [f"{where}: {now}, was {was}" for was, now in zip(old, new, strict=False) if was != now]


def explain(old: dict, new: dict) -> str:
    """How the two differ and what is to do; "" if they do not."""
    found = problems(old, new)
    if found:
        return "\n".join([
            "This breaks programs that were compiled before:", *found,
            "Leave what there is and add instead, see the top of tools/make_c_abi.py"])
    return "" if old == new else (
        "Something was added to the C interface: run `python tools/make_c_abi.py` and commit "
        "tests/fixtures/c_abi.json")


def main() -> int:
    parser = argparse.ArgumentParser(description="Pin the C interface.")
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    new = json.loads(json.dumps(snapshot()))
    old = json.loads(FILE.read_text()) if FILE.exists() else new
    difference = explain(old, new)
    if difference and (check or problems(old, new)):
        print(difference, file=sys.stderr)
        return 1
    if not check:
        FILE.write_text(json.dumps(new, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
