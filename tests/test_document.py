"""A YAML file of a stranger: what it may take of memory and time, and that it executes nothing."""

import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sheafnet import document
from sheafnet.document import MAX_BYTES, MAX_DEPTH, MAX_VALUES, read
from sheafnet.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "net.yaml"


def refusal(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(file)
    return str(caught.value)


# Size


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 1 << 20
    monkeypatch.setattr(document, "MAX_BYTES", largest)
    comment = b"#" * 1000 + b"\n"
    content = b"a: 1\n" + comment * ((largest - 5) // len(comment))
    content += b"#" * (largest - len(content))
    file.write_bytes(content)
    assert read(file)[0] == {"a": 1}
    file.write_bytes(content + b"#")
    with pytest.raises(ConfigError, match=r"net\.yaml: cannot be read: it has more than 1 MiB"):
        read(file)


def test_a_file_without_end_is_given_up() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: cannot be read: it has more than 16 MiB"):
        read("/dev/zero")


# Values


def test_values_are_counted_as_they_are_written(file: Path, monkeypatch) -> None:
    """A mapping, 2 keys, a list and its scalars, and a scalar."""
    monkeypatch.setattr(document, "MAX_VALUES", 10)
    file.write_text("a: [0, 1, 2, 3, 4]\nb: 1\n")  # 1 + 2 + 1 + 5 + 1
    assert read(file)[0] == {"a": [0, 1, 2, 3, 4], "b": 1}
    assert refusal(file, "a: [0, 1, 2, 3, 4]\nb:\n  - 1\n") == f"{file}:3: more than 10 values."


def test_values_are_counted_as_aliases_write_them_out(file: Path, monkeypatch) -> None:
    monkeypatch.setattr(document, "MAX_VALUES", 20)
    # The mapping 1, the key a 1, its list 4; the key b 1, its list 1 and 3 times 4 more: 20.
    text = "a: &a [0, 1, 2]\nb: [*a, *a, *a]\n"
    file.write_text(text)
    assert read(file)[0] == {"a": [0, 1, 2], "b": [[0, 1, 2]] * 3}
    more = refusal(file, text.replace("[*a,", "[*a, *a,"))
    assert more == f"{file}:1: its aliases stand for more than 20 values."


@pytest.mark.parametrize(
    "text",
    [
        # Merged a thousand times, a thousand keys are a million.
        "x: &x {" + ", ".join(f"k{n}: 0" for n in range(1000)) + "}\n"
        "y:\n" + "- {<<: *x}\n" * 1000,
        # Merges of merges, each of which is copied
        "m0: &m0 {" + ", ".join(f"k{n}: 0" for n in range(100)) + "}\n"
        + "".join(f"m{n}: &m{n} {{<<: *m{n - 1}, n{n}: 0}}\n" for n in range(1, 3000)),
        # A list of aliases for a list
        "x: &x [" + "0, " * 1000 + "]\ny: [" + "*x, " * 1000 + "]\n",
    ],
    ids=["merges", "merges of merges", "lists"],
)  # fmt: skip
def test_what_grows_with_the_square_of_a_file_is_refused(file: Path, text: str) -> None:
    begin = time.process_time()
    assert "its aliases stand for more than 500,000 values" in refusal(file, text)
    assert time.process_time() - begin < 10.0


@pytest.mark.parametrize(
    "text",
    [
        "a: [" + "0, " * 200_000 + "]\n",
        "a:\n" + "- 0\n" * 200_000,
        "".join(f"k{n}: {{a: 0}}\n" for n in range(60_000)),
    ],
    ids=["flow", "block", "keys"],
)
def test_a_huge_document_takes_memory_by_the_bound_not_by_its_size(monkeypatch, text: str) -> None:
    """All values of these would take 100 times the text."""
    monkeypatch.setattr(document, "MAX_VALUES", 5000)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=r"net:[0-9]+: more than 5,000 values"):
            document.parse(text, "net")
        assert tracemalloc.get_traced_memory()[1] < 15 * len(text)
    finally:
        tracemalloc.stop()


def test_the_bounds_leave_room_for_large_networks() -> None:
    """4,096 nodes with 20 keys each and 32,768 edges, names of 20 characters."""
    assert MAX_VALUES > 4096 * (2 + 40) + 32_768 * 6
    assert MAX_BYTES > 4096 * 20 * 30 + 32_768 * 60


# Depth


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_depth(file: Path, opening: str, closing: str) -> None:
    """The mapping of the file and the innermost scalar are two levels."""
    levels = MAX_DEPTH - 2
    file.write_text("a: " + opening * levels + "1" + closing * levels)
    assert set(read(file)[0]) == {"a"}
    for deep in (levels + 1, 1000, 100_000):
        message = refusal(file, "a: " + opening * deep + "1" + closing * deep)
        assert message == f"{file}: nested too deeply for a topology."


# Nothing is executed


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/apply:subprocess.check_output [[touch, {}]]",
        "!!python/object/new:type [t, [], {{}}]",
        "!!python/module:this",
        "!!python/name:os.system",
        "!!python/tuple [1, 2]",
        "!!map:os.system {{a: {}}}",
        "!local {}",
    ],
)
def test_python_tags_are_no_values(file: Path, value: str) -> None:
    mark = file.parent / "executed"
    message = refusal(file, f"a: 1\nb: {value.format(mark)}\n")
    assert message.startswith(f"{file}:2: this is not YAML: could not determine a constructor")
    assert not mark.exists()


SNIPPETS = st.sampled_from(
    ["a", "b: ", "? ", "- ", "&x ", "*x", "<<: ", "!!python/name:os.system ", "!!binary ",
     "!!set ", "!!omap ", "{", "}", "[", "]", ", ", "\n", "\n  ", "|\n", ">", "'", '"',
     "%YAML 9.9\n", "---\n", "...\n", "\t", "\ufeff", "\x85", "=", "~", "2020-99-99", ".inf",
     "0x", "1:61", "#", "\0"]
)  # fmt: skip
PLAIN = (dict, list, str, int, float, bool, bytes, type(None), set, tuple)


@settings(deadline=None, max_examples=400)
@given(st.lists(SNIPPETS, max_size=25).map("".join))
def test_any_text_is_plain_values_or_a_config_error(tmp_path_factory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        values, _ = read(file)
    except ConfigError as error:
        values, message = {}, str(error)
    else:
        message = str(file)
    assert message.startswith(str(file))
    if not values:
        return
    assert values == yaml.safe_load(text)
    stack = [values]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list):
            stack += value
        else:
            assert type(value) in PLAIN or type(value).__module__ == "datetime"
