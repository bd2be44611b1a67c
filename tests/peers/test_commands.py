"""What commands answer to wrong use: the exit codes of the manual, one sentence that says what to do, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import films
from support.node import NodeProcess, free_port, radnode


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that nobody serves, with a PACS that is not there."""
    with NodeProcess(tmp_path_factory.mktemp("commands") / "node", pacs_port=free_port()) as node:
        yield node


USAGE = {
    "no such command": ("audits",),
    "no such option": ("check", "--fast"),
    "argument missing": ("results", "show"),
    "argument that is no number": ("jobs", "retry", "first"),
    "role that is none": ("serve", "--role", "cook"),
    "address that is none": ("echo", "--to", "nowhere"),
    "certificate without key": ("echo", "--certificate", "a.crt"),
    "file that is not there": ("send", "no-such-film.dcm"),
    "pacs that is no address": ("init", "elsewhere", "--pacs", "PACS"),
    "pacs that is none": ("init", "elsewhere", "--pacs-plain"),
    "AE title that is too long": ("echo", "--ae", "SEVENTEEN_LETTERS"),
}
NOT_FOUND = {
    "result": ("results", "show", "0123456789abcdef"),
    "result to export": ("results", "export", "0123456789abcdef", "-o", "x.dcm"),
    "job": ("jobs", "show", "4711"),
    "job to retry": ("jobs", "retry", "4711"),
    "job to discard": ("jobs", "discard", "4711"),
    "entry": ("audit", "show", "4711"),
    "node to call": ("echo",),
    "destination to call": ("echo", "--to", "pacs"),
}


def _one_sentence(text: str) -> bool:
    return len(text.splitlines()) == 1 and text.startswith("radnode: ") and text.endswith((".\n", "?\n"))


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_exits_2_and_says_what_is_wrong(node: NodeProcess, arguments: tuple[str, ...]) -> None:
    told = radnode(*arguments, environment={"RADNODE_CONFIG": str(node.config)})
    assert (told.returncode, told.stdout) == (2, "")
    assert "Traceback" not in told.stderr
    assert [line for line in told.stderr.splitlines() if line.startswith("Error: ")]


@pytest.mark.parametrize("arguments", NOT_FOUND.values(), ids=NOT_FOUND)
def test_what_is_not_there_exits_1_with_one_sentence(node: NodeProcess, arguments: tuple[str, ...]) -> None:
    told = node.run(*arguments)
    assert (told.returncode, told.stdout) == (1, "")
    assert _one_sentence(told.stderr)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("[node]\nae_titel = 'X'", "unknown key 'node.ae_titel'; did you mean 'node.ae_title'?"),
        ("[detekt]\nbatch = 1", "unknown key 'detekt'; did you mean 'detect'?"),
        (
            "[[peers]]\nae_title = 'X'\nadresses = []",
            "unknown key 'peers.0.adresses'; did you mean 'peers.0.addresses'?",
        ),
        ("[node]\nport = 70000", "node.port: "),
        ("[node]\nae_title = 'MUCH_TOO_LONG_A_TITLE'", "node.ae_title: "),
        ("[[rules]]\ndeliver = ['pacs']", "a rule delivers to 'pacs', but no [[destinations]] has that name"),
        ("data_dir", "is not valid TOML"),
    ],
)
def test_configuration_that_cannot_be_used_exits_3_and_names_the_key(tmp_path: Path, line: str, named: str) -> None:
    config = tmp_path / "radnode.toml"
    config.write_text(line)
    told = radnode("serve", "-c", config)
    assert (told.returncode, told.stdout) == (3, "")
    assert _one_sentence(told.stderr)
    assert named in told.stderr


@pytest.mark.parametrize("command", ["check", "echo", "results list", "jobs list", "models verify", "audit verify"])
def test_every_command_refuses_a_configuration_with_an_unknown_key(tmp_path: Path, command: str) -> None:
    config = tmp_path / "radnode.toml"
    config.write_text("[audit]\ncheckpoint_second = 1.0")
    told = radnode(*command.split(), "-c", config)
    assert (told.returncode, told.stdout) == (3, "")
    assert told.stderr.endswith("unknown key 'audit.checkpoint_second'; did you mean 'audit.checkpoint_seconds'?\n")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("RADNODE_NODE__PROT", "1", "RADNODE_NODE__PROT: unknown key 'node.prot'; did you mean 'node.port'?"),
        ("RADNODE_DETEKT__BATCH", "1", "RADNODE_DETEKT__BATCH: unknown key 'detekt'; did you mean 'detect'?"),
        ("RADNODE_NODE__PORT", "high", "RADNODE_NODE__PORT: node.port: Input should be a valid integer"),
        ("RADNODE_PEERS", "MODALITY1", "A RADNODE_ variable that stands for a whole section or list must be JSON."),
    ],
)
def test_override_that_cannot_be_used_exits_3_and_names_the_variable(
    node: NodeProcess, variable: str, value: str, sentence: str
) -> None:
    told = radnode("check", "-c", node.config, environment={variable: value})
    assert (told.returncode, told.stdout) == (3, "")
    assert _one_sentence(told.stderr)
    assert told.stderr.startswith(f"radnode: {sentence}")


def test_configuration_that_is_not_there_exits_3_and_says_how_to_make_one(tmp_path: Path) -> None:
    told = radnode("check", "-c", tmp_path / "radnode.toml")
    assert (told.returncode, told.stdout) == (3, "")
    assert _one_sentence(told.stderr)
    assert "radnode init" in told.stderr


def test_rule_on_what_is_no_data_element_exits_3_before_anything_is_received(node: NodeProcess, tmp_path: Path) -> None:
    config = tmp_path / "radnode.toml"
    text = node.config.read_text()
    config.write_text(text.replace("match = {} ", 'match = { Modalty = "CR" } '))
    told = radnode("serve", "-c", config)
    assert (told.returncode, told.stdout) == (3, "")
    assert told.stderr == "radnode: Rule 1 cannot match 'Modalty': it is not the keyword of a Data Element.\n"
    checked = radnode("check", "-c", config)
    assert checked.returncode == 1
    assert "BAD  rules: Rule 1 cannot match 'Modalty': it is not the keyword of a Data Element." in checked.stdout


def test_init_overwrites_nothing(node: NodeProcess) -> None:
    before = {path: path.read_bytes() for path in node.folder.rglob("*") if path.is_file()}
    told = radnode("init", node.folder)
    assert told.returncode == 3
    assert _one_sentence(told.stderr)
    assert {path: path.read_bytes() for path in before} == before


def test_check_names_the_key_that_is_missing(node: NodeProcess, tmp_path: Path) -> None:
    key = node.folder / "keys" / "pseudonym.key"
    aside = tmp_path / "pseudonym.key"
    key.rename(aside)
    try:
        told = node.run("check")
        assert told.returncode == 1
        assert f"BAD  keys: The key file {key} cannot be read" in told.stdout
        assert told.stderr == ""
    finally:
        aside.rename(key)


def test_echo_to_a_node_that_is_not_served_asks_whether_it_runs(node: NodeProcess) -> None:
    sentence = "This node cannot be reached (ConnectionRefusedError); is it running? `radnode serve`."
    assert node.run("echo").stderr == f"radnode: {sentence}\n"
    other = node.run("echo", "--to", f"127.0.0.1:{node.port}")
    assert other.stderr == f"radnode: 127.0.0.1:{node.port} cannot be reached (ConnectionRefusedError).\n"


def test_empty_listings_say_so(node: NodeProcess) -> None:
    assert node.run("results", "list").stdout == "no results\n"
    assert node.run("jobs", "list").stdout == "no jobs\n"


@pytest.fixture(scope="module")
def served(node: NodeProcess) -> NodeProcess:
    return node.start(role="intake", wait=("intake",))


def test_second_supervisor_on_the_same_folder_exits_3(served: NodeProcess) -> None:
    told = served.run("serve", "--role", "intake")
    assert told.returncode == 3
    assert "A node already runs the role intake" in told.stderr


def test_send_names_the_file_that_was_not_taken_and_exits_1(served: NodeProcess, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.dcm", tmp_path / "bad.dcm"
    good.write_bytes(films.file_bytes(films.fresh(films.MR)))
    bad.write_bytes(films.file_bytes(films.fresh(films.MR))[:-500])
    told = served.run("send", tmp_path)
    assert told.returncode == 1
    assert told.stdout == "1 of 2 objects sent to RADNODE\n"
    assert len(told.stderr.splitlines()) == 1
    assert f"{bad}: This node answered C000 (cannot understand) to C-STORE." in told.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--ae", "STRANGER"), "calling AE title not recognized (1/1/3, PS3.8 Table 9-21)"),
        (("--called", "ELSEWHERE"), "called AE title not recognized (1/1/7, PS3.8 Table 9-21)"),
    ],
)
def test_echo_says_in_words_why_it_was_rejected(served: NodeProcess, arguments: tuple[str, ...], why: str) -> None:
    told = served.run("echo", *arguments)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == f"radnode: This node rejected the association: {why}; its log says why.\n"


def test_help_of_every_command_exits_0() -> None:
    for command in ((), ("serve",), ("audit", "verify")):
        told = radnode(*command, "--help")
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.startswith("Usage: ")
