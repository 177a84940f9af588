"""Bodies made up from the server's own schema, right ones and wrong ones: no 500 is among the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from serving import Running, running

from riallm.testing.engine import ScriptedEngine

# Its plug-in makes every start of pytest slower, those in the sandbox too, so that it is an extra of its own.
schemathesis = pytest.importorskip("schemathesis", reason="riallm[fuzz] is not installed; make test-slow installs it")
GenerationMode = pytest.importorskip("schemathesis.generation").GenerationMode


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ScriptedEngine(context=300)) as made:
        yield made


def ask(server: Running, *, num: int) -> Counter[int]:
    """Requests by the status of their answer; it is never 500."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    found: Counter[int] = Counter()
    for each in schema.get_all_operations():
        operation = each.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not operation.body:
                continue  # nothing can be wrong about a request without a body
            cases = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=num,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                verbosity=Verbosity.quiet,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases)
            def one(case: schemathesis.Case) -> None:
                # A made-up name would end almost every request before anything is looked at.
                if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                    del case.body["model"]
                answer = case.call(timeout=30)
                found[answer.status_code] += 1
                assert answer.status_code < 500 or answer.status_code == 501, (case.body, answer.text)

            one()
    return found


def test_no_500(server: Running) -> None:
    found = ask(server, num=4)
    assert found[200] > 10
    assert found[400] > 10


@pytest.mark.slow
def test_no_500_in_many(server: Running) -> None:
    assert ask(server, num=150)[200] > 100
