"""What the check knows of a source: each piece of code with the keys that are found in it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from failpath_otel.bindings import render_module
from failpath_otel.checking import Diagnostic, check_tree
from failpath_otel.flows import Flow, Flows, Node

FLOWS = Flows(
    {
        "checkout": Flow("checkout", "Checkout", (Node("charge-card", "Charge"), Node("ship", "Ship"))),
        "webhook": Flow("webhook", "Webhook", (Node("apply-payment", "Apply"),)),
    }
)
HEAD = "from failpath_otel import FailpathClient, FlowKey, Run, current_run\nfailpath = FailpathClient()\n"


def found(folder: Path, code: str, head: str = HEAD, others: Mapping[str, str] | None = None) -> list[Diagnostic]:
    for name, text in (others or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    main = folder / "main.py"
    main.write_text(head + textwrap.dedent(code), encoding="utf-8")
    return [finding for finding in check_tree([main], FLOWS).findings if finding.code != "not-reported"]


def told(findings: list[Diagnostic]) -> list[str]:
    return [f"{finding.code} {finding.key}" if finding.key else finding.code for finding in findings]


WRONG = {
    "a call": 'failpath.run("checkout").step("shp", print)',
    "an unknown run id and metadata": 'failpath.run("checkout", make_id(), metadata={}).skip("shp", reason="x")',
    "a keyword": 'failpath.run(flow_key="checkout").step(step_key="shp", fn=print)',
    "a variable": 'run = failpath.run("checkout")\nrun.step("shp", print)',
    "an annotated variable": 'run: Run[str] = failpath.run("checkout")\nrun.step("shp")',
    "a constant": 'KEY = "shp"\ndef f():\n    failpath.run("checkout").step(KEY)',
    "text in parts": 'failpath.run("checkout").step("s" "hp")',
    "a plain f-string": 'failpath.run("checkout").step(f"shp")',
    "an f-string of constants": 'S = "s"\nfailpath.run("checkout").step(f"{S}hp")',
    "a sum of constants": 'S = "s"\nfailpath.run("checkout").step(S + "hp")',
    "a block": 'with failpath.run("checkout") as run, run.step("shp") as step:\n    pass',
    "an asynchronous block": 'async def f():\n    async with failpath.run("checkout") as run:\n        run.step("shp", g)',
    "a name bound by a condition": 'if run := current_run():\n    run.step("shp")',
    "a decorator": '@failpath.step("shp")\ndef f(): ...',
    "a decorator of a method": 'class A:\n    @failpath.step("shp")\n    async def f(self): ...',
    "the current run": 'current_run().skip("shp")',
    "record_step": 'failpath.record_step(flow_key="checkout", run_id=1, step_key="shp", status="success")',
    "record_step of what is not known": 'x.record_step(flow_key="checkout", run_id=1, step_key="shp", status="success")',
    "an attribute": (
        "class Shop:\n    def __init__(self):\n        self.failpath = FailpathClient()\n"
        '    def buy(self):\n        self.failpath.run("checkout").step("shp")'
    ),
    "a run as an attribute": (
        'class Job:\n    def __init__(self, fp):\n        self.run = failpath.run("checkout")\n'
        '    def go(self):\n        self.run.step("shp")'
    ),
    "an attribute of a base class": (
        "class Base:\n    client = FailpathClient()\n"
        'class Shop(Base):\n    def buy(self):\n        self.client.run("checkout").step("shp")'
    ),
    "a field by its annotation": (
        'class Shop:\n    failpath: FailpathClient\n    def buy(self):\n        self.failpath.run("checkout").step("shp")'
    ),
    "a property": (
        "class Shop:\n    @property\n    def fp(self) -> FailpathClient: ...\n"
        '    def buy(self):\n        self.fp.run("checkout").step("shp")'
    ),
    "a parameter by its annotation": 'def f(fp: "FailpathClient | None"):\n    fp.run("checkout").step("shp")',
    "a run as a parameter": 'def f(run: Run[str]):\n    run.step("shp")',
    "a function's value": 'def client():\n    return FailpathClient()\nclient().run("checkout").step("shp")',
    "a subclass of the client": 'class Own(FailpathClient): ...\nOwn().run("checkout").step("shp")',
    "an unknown holder of the client": 'def f(request):\n    request.app.state.fp.run("checkout").step("shp")',
    "a fixture of the plugin": 'def test_it(failpath_client):\n    failpath_client.run("checkout").step("shp")',
    "a fixture of the file": (
        "import pytest\n@pytest.fixture\ndef fp():\n    with FailpathClient() as client:\n        yield client\n"
        'def test_it(fp):\n    fp.run("checkout").step("shp")'
    ),
    "a method by another name": 'step = failpath.run("checkout").step\nstep("shp")',
    "an enumeration": 'class Keys(str, Enum):\n    SHIP = "shp"\nfailpath.run("checkout").step(Keys.SHIP.value)',
    "either of two": 'failpath.run("checkout").step("ship" if x else "shp")',
    "each of several": 'for key in ("ship", "shp"):\n    failpath.run("checkout").skip(key)',
    "a lazily made client": (
        "_client = None\ndef get():\n    global _client\n    if _client is None:\n        _client = FailpathClient()\n"
        '    return _client\nget().run("checkout").step("shp")'
    ),
    "the later of two runs": 'run = failpath.run("webhook")\nrun = failpath.run("checkout")\nrun.step("shp")',
    "the block around it": (
        'with failpath.run("webhook") as run:\n    run.step("apply-payment")\n'
        'with failpath.run("checkout") as run:\n    run.step("shp")'
    ),
    "after a branch that does not bind it": 'run = failpath.run("checkout")\nif x:\n    print()\nrun.step("shp")',
    "in a branch that binds it": 'if x:\n    run = failpath.run("checkout")\n    run.step("shp")\nelse:\n    run = other()',
    "a span's attributes": (
        'start("x", attributes={"failpath.flow.slug": "checkout", "failpath.run.id": 1, "failpath.step.key": "shp"})'
    ),
    "a nested function": 'def f():\n    run = failpath.run("checkout")\n    def g():\n        run.step("shp")\n    return g',
    "a lambda": 'run = failpath.run("checkout")\nf = lambda: run.step("shp")',
    "a comprehension": 'run = failpath.run("checkout")\n[run.step("shp") for _ in x]',
    "a FlowKey of one's own": 'checkout = FlowKey("checkout")\nfailpath.run(checkout).step("shp")',
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_step_is_found_in(tmp_path: Path, name: str) -> None:
    findings = found(tmp_path, WRONG[name])
    assert told(findings) == ["unknown-step shp"]
    assert findings[0].suggestion == "ship"


@pytest.mark.parametrize("name", WRONG)
def test_the_right_one_is_no_finding_and_is_reported_in(tmp_path: Path, name: str) -> None:
    code = WRONG[name].replace("shp", "ship").replace('"s"', '"s"').replace('"hp"', '"hip"').replace("}hp", "}hip")
    assert found(tmp_path, code) == []
    (checkout, _) = check_tree([tmp_path / "main.py"], FLOWS).coverage
    assert "ship" in checkout.reported


NOT_CERTAIN = {
    "an unknown object's step": 'wizard.step("shp")',
    "a parameter that may be anything": 'def f(run):\n    run.step("shp")',
    "another library's run": 'import subprocess\nsubprocess.run("chekcout")',
    "an unknown object's run of an unknown flow": 'app.run("debug").step("shp")',
    "a name of another function": 'def f():\n    run = failpath.run("checkout")\ndef g(run):\n    run.step("shp")',
    "a run of this or that flow": (
        'run = failpath.run("checkout") if x else failpath.run("webhook")\nrun.step("apply-payment")\nrun.step("ship")'
    ),
    "bound anew in between": 'run = failpath.run("checkout")\nif x:\n    run = other()\nrun.step("shp")',
    "bound anew in a loop": 'run = failpath.run("checkout")\nfor x in y:\n    run.step("shp")\n    run = other()',
    "deleted": 'run = failpath.run("checkout")\ndel run\nrun.step("shp")',
    "on a line that says so": 'failpath.run("checkout").step("shp")  # failpath: ignore',
    "of a class that shadows ours": 'class FailpathClient: ...\nFailpathClient().run("x").step("shp")',
    "of a flow that is not known": 'failpath.run(slug_of(x)).step("ship")  # failpath: ignore',
}


@pytest.mark.parametrize("name", NOT_CERTAIN)
def test_what_is_not_certain_is_no_finding(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, NOT_CERTAIN[name]) == []


UNRESOLVED = {
    "a parameter": 'def f(key):\n    failpath.run("checkout").step(key)',
    "a call": 'failpath.run("checkout").step(key_of(1))',
    "an f-string with fields": 'failpath.run("checkout").step(f"ship-{x}")',
    "unpacked arguments": 'failpath.run("checkout").step(*arguments)',
    "the flow": "failpath.run(slug_of(1))",
    "a name that is bound twice": 'key = "ship"\nif x:\n    key = y\nfailpath.run("checkout").skip(key)',
    "a name that leads back to itself": 'a = b\nb = a\nfailpath.run("checkout").skip(a)',
    "a formatted one": 'S = "ship"\nfailpath.run("checkout").step(f"{S:>9}")',
}


@pytest.mark.parametrize("name", UNRESOLVED)
def test_a_key_known_only_at_run_time_is_a_note(tmp_path: Path, name: str) -> None:
    findings = found(tmp_path, UNRESOLVED[name])
    assert told(findings) == ["unresolved-key"]
    assert findings[0].severity == "note"


def test_an_unknown_flow_is_found_once_and_its_steps_are_not_held_against_another(tmp_path: Path) -> None:
    findings = found(tmp_path, 'run = failpath.run("chekcout")\nrun.step("shp")\n')
    assert told(findings) == ["unknown-flow chekcout"]
    assert findings[0].message == "flow 'chekcout' is not declared; did you mean 'checkout'?"


def test_a_step_of_another_flow_is_found(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, 'failpath.run("checkout").step("apply-payment")')
    assert finding.message == "step 'apply-payment' of flow 'checkout' is not declared"


def test_lines_and_columns_count_characters_from_one(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, 'x = "支付"; failpath.run("checkout").step("shp")', head=HEAD + "\n")
    assert (finding.line, finding.column, finding.end_line, finding.end_column) == (4, 41, 4, 46)


IMPORTS = {
    "a module beside it": (
        "from telemetry import fp\nfrom keys import SHIP",
        {"telemetry.py": HEAD + "fp = failpath", "keys.py": 'SHIP = "shp"'},
    ),
    "a package": (
        "from shop.telemetry import failpath as fp\nimport shop.keys\nSHIP = shop.keys.SHIP",
        {"shop/__init__.py": "", "shop/telemetry.py": HEAD, "shop/keys.py": 'SHIP = "shp"'},
    ),
    "a folder without __init__": (
        "from shop.telemetry import failpath as fp\nimport shop.keys as keys\nSHIP = keys.SHIP",
        {"shop/telemetry.py": HEAD, "shop/keys.py": 'SHIP = "shp"'},
    ),
    "re-exports": (
        "from shop import fp, SHIP",
        {
            "shop/__init__.py": "from .telemetry import failpath as fp\nfrom .keys import SHIP",
            "shop/telemetry.py": HEAD,
            "shop/keys.py": 'SHIP = "shp"',
        },
    ),
    "a src folder": ("from shop import failpath as fp, SHIP", {"src/shop.py": HEAD + 'SHIP = "shp"'}),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_constants_and_clients_are_known_through_imports_of(tmp_path: Path, name: str) -> None:
    imports, others = IMPORTS[name]
    findings = found(tmp_path, f'{imports}\nfp.run("checkout").step(SHIP)', head="", others=others)
    assert told(findings) == ["unknown-step shp"]


@pytest.mark.parametrize("imports", ["import flows", "from shop import flows", "import shop.flows as flows"])
def test_generated_flows_and_keys_are_known(tmp_path: Path, imports: str) -> None:
    code = f"""\
        {imports}
        run = failpath.run(flows.checkout)
        run.step(flows.checkout.charge_card)
        run.step("shp")
        run.skip(flows.webhook.apply_payment)
        failpath.record_step(flow_key=flows.webhook, run_id=1, step_key="shp", status="success")
    """
    module = render_module(FLOWS, "flows.json")
    place = {"shop/__init__.py": "", "shop/flows.py": module} if "shop" in imports else {"flows.py": module}
    assert told(found(tmp_path, code, others=place)) == ["unknown-step shp", "unknown-step apply-payment", "unknown-step shp"]


def test_a_circular_import_ends(tmp_path: Path) -> None:
    others = {"a.py": "from b import KEY", "b.py": "from a import KEY"}
    findings = found(tmp_path, "from a import KEY\nfailpath.run('checkout').step(KEY)", others=others)
    assert told(findings) == ["unresolved-key"]


def test_deep_and_long_expressions_end(tmp_path: Path) -> None:
    many = " + ".join(['"a"'] * 500)
    links = "\n".join(f"a{number} = a{number - 1}" for number in range(1, 500))
    code = f'run = failpath.run("checkout")\nrun.step({many})\na0 = "ship"\n{links}\nrun.step(a499)\n'
    assert told(found(tmp_path, code)) == ["unresolved-key"] * 2
