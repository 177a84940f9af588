"""The packages whose injected bugs choose the weights of the ranking: none is in a corpus, none is measured on."""

from __future__ import annotations

from pathlib import Path

from riallm.eval.sets.held_out import Held

MANIFEST = Path(__file__).parent / "calibration.jsonl"


def _files(*names: str) -> tuple[str, ...]:
    """Modules of a folder of tests whose others need packages of their own."""
    return tuple(f"tests/{name}.py" for name in " ".join(names).split())


CALIBRATION: dict[str, Held] = {
    held.name: held
    for held in (
        Held(
            name="addict",
            version="2.4.0",
            sha256="b3b2210e0e067a281f5646c8c5db92e99b7231ea8b0eb5f74dbdf9e259d4e494",
            licence="MIT",
            code=("addict",),
            tests=("test_addict.py",),
        ),
        Held(
            name="anytree",
            version="2.13.0",
            sha256="c9d3aa6825fdd06af7ebb05b4ef291d2db63e62bb1f9b7d9b71354be9d362714",
            licence="Apache-2.0",
            code=("src/anytree",),
            tests=_files(
                "__init__ helper test_cachedsearch test_dictexporter test_dictimporter test_iterators",
                "test_jsonexporter test_jsonimporter test_lightnode test_node test_node_attach_detach",
                "test_node_integrity test_node_sep test_node_symlink test_render test_resolver test_search test_util",
            ),
        ),
        Held(
            name="funcy",
            version="2.1",
            sha256="8979feb3de7120afd1d00e5a8eae810c1942e4bfbc91697151e9ee1e49f79284",
            licence="BSD-3-Clause",
            code=("funcy",),
            tests=_files(
                "__init__ py38_decorators py38_funcs test_calc test_debug test_decorators test_flow test_funcmakers",
                "test_interface test_objects test_strings test_types",
            ),
        ),
        Held(
            name="h11",
            version="0.16.0",
            sha256="4e35b956cf45792e4caa5885e69fba00bdbc6ffafbfa020300e549b208ee5ff1",
            licence="MIT",
            code=("h11",),
            tests=("h11/tests",),
            left_out=("against_stdlib",),  # they open sockets
        ),
        Held(
            name="pyasn1",
            version="0.6.5",
            sha256="6b11616a6bcf3a40e635f082bb232fa57b5e0dd7f517bd7ddd69ec3794508a47",
            licence="BSD-2-Clause",
            code=("pyasn1",),
        ),
        Held(
            name="texttable",
            version="1.7.2",
            sha256="dc16ea6b35fbf5291ba6ef79d79e37d9b3ca6acd7bae3ca3450488d7c2e19c99",
            licence="MIT",
            code=("texttable.py",),
            tests=("tests.py",),
        ),
        Held(
            name="tomlkit",
            version="0.15.2",
            sha256="83e32755ba1d20d9340bd069ee97e9f6232ba2346b63ffcba425de01f7e327a6",
            licence="MIT",
            code=("tomlkit",),
            left_out=("test_valid", "test_invalid"),  # of files that are not packed here
        ),
    )
}
"""Name -> release. Pure Python, permissive, with tests that need nothing but pytest."""
