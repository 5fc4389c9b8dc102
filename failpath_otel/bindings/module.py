"""The module that ``failpath-otel generate`` writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from failpath_otel.bindings.literals import docstring, literal
from failpath_otel.bindings.names import class_name, unique_names, variable_name
from failpath_otel.flows import Flow, Flows, Node

MARK: Final = "# Made by `failpath-otel generate`"
"""How every generated module begins."""
_NOQA: Final = "A001, D400, D403, D415, E501, INP001, PLC2401, RUF001, RUF002, RUF100, UP040"
"""What labels and keys of any text may break. Named one by one: not to do so is itself against a rule (PGH004)."""
_HEAD: Final = f"""\
{MARK} from {{source}}. Do not edit: change that file and run the command again.
# fmt: off
# ruff: noqa: {_NOQA}
"""
_RESERVED_OF_STEPS: Final = frozenset({"slug"})


def render_module(flows: Flows, source: str) -> str:
    """The module's text: the same for the same flows, whatever the machine, the day or the version of this package.

    It is written as ruff format and black would. A comment has them leave it alone, since how long a line may be is
    the user's own setting.

    Args:
        flows: In the order of the file.
        source: The name of the file that the header gives.
    """
    names = unique_names((flow.slug for flow in flows), lambda slug: variable_name(slug, "flow"))
    classes = unique_names((flow.slug for flow in flows), lambda slug: class_name(names[slug]))
    head = _head(flows, source)
    bodies = ["\n".join(_flow_lines(flow, names[flow.slug], classes[flow.slug])) for flow in flows]
    return "\n".join([head, "\n\n".join(bodies)]) if bodies else head


def _head(flows: Flows, source: str) -> str:
    about = docstring(f"The flows that {source} declares, and the keys of their steps.")
    lines = [f"{_HEAD.format(source=_one_line(source))}{about}\n"]
    if len(flows):
        keys = any(flow.nodes for flow in flows)
        none = any(not flow.nodes for flow in flows)
        typing = ["Final", *(["Literal"] if keys else []), *(["NoReturn"] if none else []), "TypeAlias"]
        lines += [f"from typing import {', '.join(typing)}\n", "from failpath_otel import FlowKey\n"]
    return "\n".join(lines)


def _flow_lines(flow: Flow, name: str, base: str) -> Iterator[str]:
    yield from _keys_lines(flow, f"{base}Step")
    yield ""
    yield ""
    yield f"class {base}Flow(FlowKey[{base}Step]):"
    yield f"    {docstring(flow.name)}"
    yield ""
    yield "    __slots__ = ()"
    steps = unique_names((node.step_key for node in flow.nodes), lambda key: variable_name(key, "step", _RESERVED_OF_STEPS))
    for node in flow.nodes:
        yield ""
        yield from _step_lines(node, steps[node.step_key])
    yield ""
    yield ""
    yield f"{name}: Final = {base}Flow({literal(flow.slug)})"
    yield docstring(flow.name)
    yield ""


def _keys_lines(flow: Flow, alias: str) -> Iterator[str]:
    if flow.nodes:
        yield f"{alias}: TypeAlias = Literal["
        for node in flow.nodes:
            yield f"    {literal(node.step_key)},"
        yield "]"
    else:
        # No step is declared, so no key is a right one.
        yield f"{alias}: TypeAlias = NoReturn"
    yield docstring(f"The step keys of {flow.name}.")


def _step_lines(node: Node, name: str) -> Iterator[str]:
    yield f"    {name}: Final = {literal(node.step_key)}"
    yield f"    {docstring(node.label)}"


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
