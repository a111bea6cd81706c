"""CUDA sources to what g++ takes: asm statements become calls of the functions in ptx.h."""

from __future__ import annotations

import re
from ast import literal_eval
from functools import cache
from pathlib import Path

_ASM = re.compile(r"\basm\s*(?:volatile\s*)?\(")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_DYNAMIC = re.compile(r"extern __shared__\s+(?:__align__\(\d+\)\s*)?([\w:]+)\s+(\w+)\[\];")
_CLUSTER = re.compile(r"(__cluster_dims__\((\w+)[^)]*\)[^{};]*\{)")


def translated(source: Path, name: str) -> str:
    """The text of a .cu or .cuh file, with the same lines and of this name. ValueError for an asm that isn't
    understood."""
    text = source.read_text()
    text = _DYNAMIC.sub(r"\1* const \2 = static_cast<\1*>(emulator::dynamic_shared_memory());", text)
    text = _CLUSTER.sub(r"\1 emulator::require_cluster(\2);", text)
    done = [f'#line 1 "{name}"\n']
    at = 0
    while match := _ASM.search(text, at):
        end = _closing(text, match.end())
        statement = text[match.end() : end]
        done += [text[at : match.start()], calls(statement), "\n" * statement.count("\n")]
        at = end + 1
    return "".join([*done, text[at:]])


def calls(statement: str) -> str:
    """What stands in the brackets of asm as an expression: of `"mapa.u64 %0, %1, %2;" : "=l"(to) : "l"(p),
    "r"(1)` it is `ptx::mapa_u64(to, p, 1)`. Labels, registers and jumps are left out: the loop around
    try_wait is in its function.
    """
    template, *sections = _split(statement, ":")
    operands = [_operand(operand) for section in sections[:2] for operand in _split(section, ",") if operand]
    program = "".join(literal_eval(part) for part in _STRING.findall(template))
    found = []
    for line in re.split(r"[;\n]", program):
        instruction = re.sub(r"^\w+:(\s+|$)", "", line.strip("{} \t"))
        if not instruction or instruction[0] in ".@" or instruction.startswith("bra "):
            continue
        name, _, given = instruction.partition(" ")
        arguments = [word.strip("[]{} ") for word in given.split(",")]
        values = [re.sub(r"%(\d+)", lambda n: f"({operands[int(n[1])]})", word) for word in arguments]
        kept = [value for value, word in zip(values, arguments, strict=True) if re.match(r"[%\d]", word)]
        function = re.sub("[.:]+", "_", name)
        found.append(
            f"ptx::{function}({', '.join(kept)})" if function in _known() else f'ptx::unknown("{name}")'
        )
    return f"({', '.join(found) or 'void()'})"


@cache
def _known() -> set[str]:
    return set(re.findall(r"\w+", Path(__file__).with_name("ptx.h").read_text()))


def _operand(text: str) -> str:
    """The expression of `"constraint"(expression)`."""
    if match := re.fullmatch(r'\s*"[^"]*"\s*\((.*)\)\s*', text, re.DOTALL):
        return " ".join(match[1].split())
    raise ValueError(f"an operand of asm that isn't understood: {text}")


def _split(text: str, separator: str) -> list[str]:
    """Apart at separators that are in neither strings nor brackets. `a::b` within brackets is left alone."""
    parts, depth, begin, at = [], 0, 0, 0
    while at < len(text):
        if string := _STRING.match(text, at):
            at = string.end()
            continue
        depth += {"(": 1, ")": -1, "{": 1, "}": -1, "[": 1, "]": -1}.get(text[at], 0)
        if text[at] == separator and depth == 0:
            parts.append(text[begin:at])
            begin = at + 1
        at += 1
    return [part.strip() for part in [*parts, text[begin:]]]


def _closing(text: str, at: int) -> int:
    """Where the bracket is closed that was opened before `at`."""
    depth = 1
    while at < len(text):
        if string := _STRING.match(text, at):
            at = string.end()
            continue
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
        at += 1
    raise ValueError("an asm statement without an end")
