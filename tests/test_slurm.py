"""The parsers of what Slurm's commands print, by samples from Slurm 22.05."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irmas.errors import UserError
from irmas.run.folder import Status
from irmas.sweep import slurm
from irmas.sweep.run_states import merge_state
from irmas.sweep.slurm import SlurmError, Task, expand_ranges, parse_accounting, parse_queue, parse_reply, ranges

QUEUE = """\
3|4|COMPLETED|None|n2|0:00|irmas-x|/home/a|/home/a/irmas.sbatch train outputs/x --runs 1-4
3|3|COMPLETING|None|n2|0:07|irmas-x|/home/a|/home/a/irmas.sbatch train outputs/x --runs 1-4
3|1|FAILED|NonZeroExitCode|n1|1:02:03|irmas-x|/home/a|/home/a/irmas.sbatch train outputs/x --runs 1-4
4|7|CANCELLED|JobHeldUser||0:00|irmas|/home/a|/home/a/irmas.sbatch train outputs/x
5|N/A|RUNNING|None|n3|2-00:00:01|irmas-data|/home/a|(null)
6|1|PENDING|JobHeldUser||0:00|irmas|/home/a|/home/a/irmas.sbatch train outputs/a b
"""

ACCOUNTING = """\
5|irmas-data|COMPLETED|0:0|n3|00:00:00
5.batch|batch|COMPLETED|0:0|n3|00:00:00
3_1|irmas-x|FAILED|3:0|n1|00:00:00
3_1.batch|batch|FAILED|3:0|n1|00:00:00
3_2|irmas-x|FAILED|1:0|n1|00:00:00
3_2.batch|batch|FAILED|1:0|n1|00:00:00
3_2.0|python3|OUT_OF_MEMORY|0:125|n1|00:00:00
3_3|irmas-x|CANCELLED by 0|0:0|n2|00:00:07
3_3.batch|batch|CANCELLED|0:15|n2|00:00:07
3_4|irmas-x|COMPLETED|0:0|n2|00:00:00
16_1|irmas|TIMEOUT|0:0|n1|00:00:25
16_1.batch|batch|CANCELLED|0:15|n1|00:00:26
21|irmas|FAILED|0:9|n1|00:00:00
21.batch|batch|CANCELLED|0:9|n1|00:00:00
4_[1-3,7%1]|irmas|CANCELLED by 0|0:0|None assigned|00:00:00
14_[1-9:4%2]|irmas|CANCELLED by 0|0:0|None assigned|00:00:00
23_[1-2]|irmas|PENDING|0:0|None assigned|00:00:00
398_3|irmas|NODE_FAIL|0:0|n1|00:00:26
351_1|irmas|CANCELLED+|0:0|n1|00:00:01
"""


def printed(text: str) -> str:
    return text.replace("|", "\x1f")


def test_a_job_that_is_completing_keeps_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm has ended it, or will requeue it, and kills its processes."""
    for states, expected in {"RUNNING": True, "COMPLETING\nPENDING": True, "COMPLETING\n": False, "": False}.items():
        monkeypatch.setattr(slurm, "_output", lambda *command, states=states, **options: states)
        assert slurm.is_running("7_1") == expected


def test_a_line_of_squeue_is_a_task() -> None:
    tasks = {task.id: task for task in parse_queue(printed(QUEUE))}
    assert list(tasks) == ["3_4", "3_3", "3_1", "4_7", "5", "6_1"]
    assert tasks["3_1"] == Task(
        job="3",
        index=1,
        state="FAILED",
        reason="NonZeroExitCode",
        node="n1",
        elapsed="1:02:03",
        name="irmas-x",
        command="/home/a/irmas.sbatch train outputs/x --runs 1-4",
        folder="/home/a",
    )
    assert [task.is_live for task in tasks.values()] == [False, True, False, False, True, True]
    assert (tasks["5"].index, tasks["5"].reason, tasks["5"].command) == (None, "", "")
    assert tasks["6_1"].command.endswith("outputs/a b")
    assert [tasks[name].elapsed_s for name in ("3_3", "3_1", "5")] == [7, 3723, 2 * 86400 + 1]


@pytest.mark.parametrize(
    ("task", "state", "exit_code", "node"),
    [
        ("5", "COMPLETED", "", "n3"),
        ("3_1", "FAILED", "3:0", "n1"),
        ("3_2", "OUT_OF_MEMORY", "1:0", "n1"),
        ("3_3", "CANCELLED", "", "n2"),
        ("3_4", "COMPLETED", "", "n2"),
        ("16_1", "TIMEOUT", "", "n1"),
        ("21", "FAILED", "0:9", "n1"),
        ("4_7", "CANCELLED", "", ""),
        ("14_5", "CANCELLED", "", ""),
        ("23_2", "PENDING", "", ""),
        ("398_3", "NODE_FAIL", "", "n1"),
        ("351_1", "CANCELLED", "", "n1"),
    ],
)
def test_a_row_of_sacct_and_its_steps_are_a_task(task: str, state: str, exit_code: str, node: str) -> None:
    found = {task.id: task for task in parse_accounting(printed(ACCOUNTING))}[task]
    assert (found.state, found.exit_code, found.node) == (state, exit_code, node)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("Submitted batch job 77", ("77", "")),
        ("Submitted batch job 77 on cluster second\n", ("77", "second")),
        ("15786755", ("15786755", "")),
        ("120;second", ("120", "second")),
        ("Welcome. Your last job 46 used 3 SU.\nSubmitted batch job 77", ("77", "")),
        ("Submitted batch job 77\r\nThis job is charged to account 12\n", ("77", "")),
        ("46\nSubmitted batch job 77", ("77", "")),
        ("Submitted batch job 76\n77", ("77", "")),
        ("Your job 46 is running", None),
        ("Note: Submitted batch job 77", None),
        ("Submitted batch job 77.", None),
        ("Submitted batch job 7 7", None),
        ("77 78", None),
        ("", None),
    ],
)
def test_only_a_whole_line_is_the_reply_of_sbatch(text: str, reply: tuple[str, str] | None) -> None:
    assert parse_reply(text) == reply


def test_a_lump_of_an_array_is_all_of_its_tasks() -> None:
    tasks = parse_accounting(printed(ACCOUNTING))
    assert [task.index for task in tasks if task.job == "4"] == [1, 2, 3, 7]
    assert [task.index for task in tasks if task.job == "14"] == [1, 5, 9]
    assert [task.id for task in tasks if task.job == "3"] == ["3_1", "3_2", "3_3", "3_4"]


FIELD = st.text(st.characters(exclude_characters="\x1f\n", exclude_categories=["Cs"]), max_size=12)
CELL = FIELD | st.text(st.sampled_from("01239_[]-,:%.+ N/A"), max_size=9) | st.sampled_from(["FAILED", "7", "7_[1-3]"])
PRINTED = st.text() | st.lists(
    st.lists(CELL, min_size=6, max_size=6) | st.lists(CELL, min_size=9, max_size=9) | st.lists(CELL), max_size=3
).map(lambda rows: "\n".join("\x1f".join(row) for row in rows))
NUMBER = st.integers(0, 99_999)


@given(st.sets(st.integers(0, 10_000)))
def test_ranges_and_their_inverse(numbers: set[int]) -> None:
    text = ranges(numbers)
    assert (expand_ranges(text) if text else []) == sorted(numbers)


@pytest.mark.parametrize("text", ["", "1-", "a", "1--3", "1-9:0", "1, 2", "3-1", "1-9:00", "1\n", "1-99999999999"])
def test_what_is_no_list_of_ranges_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no list of numbers"):
        expand_ranges(text)


@given(st.text(st.sampled_from("0123,:-% \n"), max_size=9))
def test_any_text_is_a_list_of_numbers_or_is_refused(text: str) -> None:
    with suppress(ValueError):
        numbers = expand_ranges(text)
        assert {int(part.partition("-")[0]) for part in text.split(",")} <= set(numbers)
        assert expand_ranges(ranges(numbers)) == sorted(set(numbers))


@given(PRINTED)
@settings(max_examples=500)
def test_any_text_is_read_as_jobs_or_passed_over(text: str) -> None:
    """Parsed tasks have valid numbers and states."""
    for task in parse_queue(text) + parse_accounting(text):
        assert int(task.job) >= 0
        assert task.elapsed_s >= 0
        assert merge_state(Status(), task, 0.0).state


@given(
    st.lists(
        st.tuples(NUMBER, st.none() | NUMBER, FIELD.filter(bool), FIELD, FIELD, FIELD, FIELD, FIELD, FIELD),
        max_size=4,
    )
)
def test_a_line_of_squeue_gives_back_its_parts(rows: list[tuple[Any, ...]]) -> None:
    text = "".join("\x1f".join(["N/A" if part is None else str(part) for part in row]) + "\n" for row in rows)
    for row, task in zip(rows, parse_queue(text), strict=True):
        job, index, state, reason, node, elapsed, name, folder, command = row
        assert (task.job, task.index, task.state, task.node, task.elapsed) == (str(job), index, state, node, elapsed)
        assert (task.name, task.folder) == (name, folder)
        assert task.reason == ("" if reason in ("None", "(null)") else reason)
        assert task.command == ("" if command in ("None", "(null)") else command)


@given(
    NUMBER,
    st.sets(st.integers(0, 400), min_size=1),
    st.integers(1, 9),
    st.sampled_from(["PENDING", "FAILED", "CANCELLED by 0", "CANCELLED+", "TIMEOUT"]),
    st.tuples(st.integers(0, 255), st.integers(0, 64)),
    FIELD,
)
def test_a_row_of_sacct_gives_back_its_parts(
    job: int, indices: set[int], throttle: int, state: str, code: tuple[int, int], name: str
) -> None:
    row = f"{job}_[{ranges(indices)}%{throttle}]|{state}|{code[0]}:{code[1]}|None assigned|01:02:03"
    head, _, rest = printed(row).partition("\x1f")
    tasks = parse_accounting(f"{head}\x1f{name}\x1f{rest}\n")
    assert {task.index for task in tasks} == indices
    for task in tasks:
        assert (task.job, task.name, task.node, task.elapsed_s) == (str(job), name, "", 3723)
        assert task.state == state.split()[0].rstrip("+")
        assert task.exit_code == ("" if code == (0, 0) else f"{code[0]}:{code[1]}")


def test_a_strangers_job_hides_none_of_ours() -> None:
    stranger = QUEUE.splitlines()[0].replace("irmas-x", "two\nlines\x85")
    assert parse_queue(printed(f"{stranger}\n{QUEUE}")) == parse_queue(printed(QUEUE))


def test_without_slurm_the_message_names_the_other_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"squeue.*not installed.*hydra/launcher=local"):
        slurm.queue(["irmas"])
    assert slurm.accounting(["1"]) == []


def test_no_variable_gives_the_commands_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SCANCEL_NAME would make scancel cancel only jobs of that name, SQUEUE_STATES hide waiting ones."""
    (tmp_path / "scancel").write_text('#!/bin/sh\nenv >"${0%/*}/environment"\n')
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("SQUEUE_STATES", "SACCT_FORMAT", "SCANCEL_NAME", "SCONTROL_ALL", "SLURM_CONF"):
        monkeypatch.setenv(name, "given")
    slurm.cancel(["7"])
    lines = (tmp_path / "environment").read_text().splitlines()
    assert [line for line in lines if line.endswith("=given")] == ["SLURM_CONF=given"]


@pytest.mark.parametrize(
    ("parameters", "largest"), [("", 1000), ("a=1,max_array_tasks=8,b", 8), ("max_array_tasks=9999", 1000)]
)
def test_the_largest_array_is_the_smaller_of_two_limits(
    parameters: str, largest: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = f"ClusterName = Here\nMaxArraySize            = 1001\nSchedulerParameters     = {parameters}"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "{lines}"\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert slurm.config() == ("here", largest)


def test_all_commands_ask_one_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = 'echo "${0##*/} $* $SLURM_CLUSTERS" >>"${0%/*}/calls"; echo "ClusterName = Here"; echo "MaxArraySize = 9"'
    for name in ("scontrol", "squeue", "sacct", "scancel"):
        (tmp_path / name).write_text(f"#!/bin/bash\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CLUSTERS", "elsewhere")

    def asked(cluster: str) -> set[str]:
        """Return the clusters that all commands ask."""
        (tmp_path / "calls").unlink(missing_ok=True)
        with slurm.on_cluster(cluster):
            (tmp_path / "calls").unlink(missing_ok=True)
            slurm.queue(["irmas"])
            slurm.accounting(["7"])
            slurm.cancel(["7"])
            slurm.begin("7")
            slurm.release("7")
            slurm.requeue("7_1")
            slurm.is_running("7")
            slurm.config()
        lines = (tmp_path / "calls").read_text().splitlines()
        assert len(lines) == 8
        assert not any("elsewhere" in line for line in lines)
        return {option.group(1) if (option := re.match(r"\w+ --clusters=(\w+)", line)) else "" for line in lines}

    assert asked("there") == {"there"}
    assert asked("here") == asked("") == {""}
    assert slurm.named_cluster() == "elsewhere"
    assert slurm.named_cluster("There") == "there"
    for several in ("a,b", "all"):
        monkeypatch.setenv("SLURM_CLUSTERS", several)
        with pytest.raises(UserError, match=r"must name one cluster; or give hydra.launcher.cluster"):
            slurm.named_cluster()
