"""Rules of CONTRIBUTING.md that a machine can check."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from tokenize import COMMENT, DEDENT, ENCODING, ENDMARKER, INDENT, NEWLINE, NL, tokenize

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "prolip"
MODULES = sorted(PACKAGE.rglob("*.py"))
RUST = sorted((ROOT / "rust").rglob("*.rs"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def _tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


@cache
def _nodes(path):
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def _imports(path):
    names = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_the_lists_of_checked_files_are_not_empty():
    assert len(MODULES) > 20
    assert len(RUST) > 15


def test_a_file_is_one_thing():
    long = [path for path in MODULES + RUST + TESTS if len(path.read_text(encoding="utf-8").splitlines()) > 650]
    assert not long


# A token is a name, number, string, operator: neither longer lines nor fewer blank lines change the weight.
RUST_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.|[^\'\\])\'|\'\w+|\w+|[^\s\w]', re.S
)
LAYOUT = {COMMENT, NL, NEWLINE, INDENT, DEDENT, ENCODING, ENDMARKER}


def _tokens(path):
    """Tokens of a source file without comments and docstrings."""
    if path.suffix == ".rs":
        text = path.read_text(encoding="utf-8")
        return sum(not match[0].startswith(("//", "/*")) for match in RUST_TOKEN.finditer(text))
    bodies = [node.body for node in _nodes(path) if isinstance(getattr(node, "body", None), list)]
    documents = [child for body in bodies for child in body if _is_text(child)]
    lines = {line for node in documents for line in range(node.lineno, node.end_lineno + 1)}
    with path.open("rb") as file:
        return sum(token.type not in LAYOUT and token.start[0] not in lines for token in tokenize(file.readline))


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _room(path):
    parts = path.relative_to(ROOT).parts
    if parts[0] == "rust" and re.search(r"tests?(\.rs|/)|benches|fuzz", "/".join(parts)):
        return "rust: tests"
    depth = {"tests": 2, "python": 3, "rust": 4}[parts[0]]
    return "/".join(parts[:depth] if len(parts) > depth else parts[: 1 if depth == 2 else 2])


def test_every_room_stays_within_its_budget():
    """CONTRIBUTING.md has a budget of tokens for each room, and one for all of the product and all tests."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \|.*\| ([\d,]+) \|$", table, re.MULTILINE)
    budgets = {room: int(tokens.replace(",", "")) for room, tokens in rows}
    product, tests = (
        int(total.replace(",", "")) for total in re.findall(r"^\| all of the .* \| ([\d,]+) \|$", table, re.MULTILINE)
    )
    of_tests = sum(budget for room, budget in budgets.items() if "tests" in room)
    assert of_tests <= tests
    assert sum(budgets.values()) - of_tests <= product
    weights = Counter()
    for path in [*MODULES, *PACKAGE.rglob("*.pyi"), *RUST, *TESTS]:
        weights[_room(path)] += _tokens(path)
    assert weights.keys() == budgets.keys()
    assert not {room: weight for room, weight in weights.items() if weight > budgets[room]}


def test_only_three_rooms_import_core():
    allowed = {PACKAGE / "__init__.py"}
    allowed.update(path for room in ("data", "images", "distributed") for path in (PACKAGE / room).glob("*.py"))
    touching = {path for path in MODULES if any(name.startswith("prolip._core") for name in _imports(path))}
    assert touching <= allowed, f"import prolip.data or prolip.data.tokenizer instead: {sorted(touching - allowed)}"


def test_no_room_below_train_imports_its_config():
    above = ("cli", "demo", "interop", "train")
    importing = {path for path in MODULES if any(name.startswith("prolip.train.config") for name in _imports(path))}
    rooms = {path.relative_to(PACKAGE).parts[0] for path in importing}
    assert rooms <= set(above)


# These are imported when another module has checked that the packages of an extra are there, or check it themselves.
BEHIND_AN_EXTRA = (
    "explore/page.py",
    "explore/gate.py",
    "interop/transformers/",
)


def test_only_checked_modules_import_packages_of_an_extra_at_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in project["dependencies"]}
    always = names - {"pillow"} | {"PIL", "prolip"} | sys.stdlib_module_names
    for path in MODULES:
        if str(path.relative_to(PACKAGE)).startswith(BEHIND_AN_EXTRA):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                found = [node.module]
            further = {name.partition(".")[0] for name in found} - always
            assert not further, f"{path} imports {further}, which not every installation has"


def test_only_the_command_line_prints():
    speaking = set((PACKAGE / "cli").glob("*.py"))
    for path in MODULES:
        calls = [node for node in _nodes(path) if isinstance(node, ast.Call)]
        printed = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        assert not printed or path in speaking, f"{path.relative_to(ROOT)} prints at lines {printed}: use logging"


def test_only_the_command_line_writes_to_the_terminal():
    writing = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if re.search(r"sys\.std(out|err)\.write", path.read_text(encoding="utf-8"))
    }
    assert not {place for place in writing if not place.startswith("cli/")}


def test_no_module_has_a_meaningless_name():
    drawers = {"utils", "util", "helpers", "helper", "misc", "common", "base", "core", "types"}
    assert not [path for path in MODULES if path.stem in drawers or path.parent.name in drawers]


def test_unit_tests_mirror_the_package():
    """A folder of tests/unit tests the room of the same name."""
    tests = ROOT / "tests" / "unit"
    for path in sorted(tests.rglob("*.py")):
        assert (PACKAGE / path.parent.relative_to(tests)).is_dir()
        assert path.name == "conftest.py" or path.name.startswith("test_")


def test_no_todo_or_unimplemented_code_is_left():
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError|\bunimplemented!|\btodo!")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in MODULES + RUST
        if (match := marks.search(path.read_text(encoding="utf-8")))
    ]
    assert not found


# One a foreign library or a family of SIMD kernels, with the functions that choose a kernel by what the processor has.
UNSAFE = {
    "jpeg/src/kernels": "SIMD kernels of JPEG, and who calls them once the processor is known",
    "jpeg/src/tests.rs": "libjpeg-turbo, which the tests compare with",
    "loader/src/os.rs": "advice about memory",
    "image/src/kernels": "SIMD kernels of resizing and colours, and who calls them once the processor is known",
    "image/src/resize.rs": "calls them",
    "image/src/by_simd.rs": "calls them",
    "loader/src/pipeline/row_slots.rs": "rows of one batch written by several threads",
    "image/src/decode/jpeg.rs": "libjpeg-turbo",
    "image/src/decode/webp.rs": "libwebp",
    "python/src/batch.rs": "numpy arrays over the loader's memory",
}


def test_unsafe_rust_is_only_in_audited_files():
    for path in RUST:
        if re.search(r"\bunsafe\s*(\{|fn|impl)", path.read_text(encoding="utf-8")):
            place = str(path.relative_to(ROOT / "rust"))
            assert place.startswith(tuple(UNSAFE)), f"{place} is unsafe: audit it and name it in UNSAFE"


# A closure over an intrinsic that is given to a function of std, up to the end of the statement.
CLOSURE_OF_VECTORS = re.compile(r"(?:\.map|\.fold|from_fn)\([^;]*?(?:\b_mm\d*_|\bv\w+q_)")


def test_no_closure_of_vectors_is_given_to_std():
    """Whether it is inlined depends on the rest of the crate, and a call per vector takes as long as the arithmetic."""
    kernels = [path for path in RUST if "kernels" in path.parts]
    assert len(kernels) > 10
    assert CLOSURE_OF_VECTORS.search("sums.map(|sum| {\n _mm512_srai_epi32::<8>(sum)\n})")
    found = [path for path in kernels if CLOSURE_OF_VECTORS.search(path.read_text(encoding="utf-8"))]
    assert not found, f"write a loop: {found}"


def test_unsafe_rust_has_a_safety_comment():
    for path in RUST:
        if path.name.endswith("tests.rs"):
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            code = line.split("//")[0]
            if re.search(r"\bunsafe\s*(\{|fn|impl)", code):
                above = "\n".join(lines[max(0, number - 12) : number + 1])
                assert "SAFETY" in above or "# Safety" in above, f"{path.relative_to(ROOT)}:{number + 1}"


def test_no_machine_or_registry_is_named():
    # Written in pieces, so that this file does not name them either.
    banned = [
        "/work/" + "main",
        "/work/" + "shared",
        "pypi" + ".org",
        "files.python" + "hosted",
        "static.crates" + ".io",
    ]
    for path in _tracked():
        if path.suffix in {".png", ".safetensors", ".lock"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [word for word in banned if word in text], path.relative_to(ROOT)


def test_only_the_demo_knows_its_data():
    demo = tuple(str(PACKAGE / name) for name in ("demo/", "build/emoji/", "cli/demo.py", "recipes/demo.toml"))
    others = [path for path in _tracked() if path.is_relative_to(PACKAGE) and not str(path).startswith(demo)]
    assert len(others) > 200
    assert not [path for path in others if "emoji" in path.read_text(encoding="utf-8", errors="replace").lower()]


def test_the_version_is_defined_once():
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"], "the version stands in Cargo.toml alone"
    assert cargo["workspace"]["package"]["version"]
    for crate in ("jpeg", "loader", "python"):
        manifest = tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text(encoding="utf-8"))
        assert manifest["package"]["version"] == {"workspace": True}
        assert manifest["lints"] == {"workspace": True}


def test_constraints_fit_the_ranges_and_carry_no_addresses():
    from packaging.requirements import Requirement

    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line), line
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name == project["name"]:  # an extra that is made of others
            continue
        assert pins[requirement.name.lower().replace("_", "-")] in requirement.specifier, text
