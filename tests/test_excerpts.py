"""File names become excerpts; what does not fit is listed in one message."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import event, example, given
from hypothesis import strategies as st

from irmas.config import Data
from irmas.data.excerpts import AUDIO, IRMAS_NAME, Excerpt, listing_digest, passed_over, scan
from irmas.data.sound import read_form
from irmas.errors import DataError
from irmas.labels import CODES

GENRES = ("cou_fol", "cla", "pop_roc", "lat_sou", "jaz_blu")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def folder(root: Path, recordings: Path | None = None) -> Data:
    return Data(source="folder", root=str(root), recordings=str(recordings) if recordings else None)


def write_csv(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@given(
    st.none() | st.integers(0, 999),
    st.sampled_from(CODES),
    st.none() | st.sampled_from(["dru", "nod", "---"]),
    st.sampled_from(GENRES),
    st.integers(0, 9999),
    st.integers(1, 3),
)
def test_a_name_gives_back_the_parts_it_was_made_of(
    prefix: int | None, label: str, drums: str | None, genre: str, recording: int, number: int
) -> None:
    name = f"{'' if prefix is None else f'{prefix:03d}__'}[{label}]{'' if drums is None else f'[{drums}]'}"
    match = IRMAS_NAME.fullmatch(f"{name}[{genre}]{recording:04d}__{number}")
    assert match is not None
    assert match.groupdict() == {
        "prefix": None if prefix is None else f"{prefix:03d}",
        "label": label,
        "drums": drums,
        "genre": genre,
        "recording": f"{recording:04d}",
        "number": str(number),
    }


def is_name(text: str) -> bool:
    """The grammar once more, without regular expressions."""

    def digits(part: str, number: int) -> bool:
        return len(part) == number and all(digit in "0123456789" for digit in part)

    def letters(part: str, more: str = "") -> bool:
        return part != "" and all(letter in "abcdefghijklmnopqrstuvwxyz" + more for letter in part)

    prefix, bracket, rest = text.partition("[")
    *tags, end = rest.split("]")
    recording, _, number = end.partition("__")
    return (
        bool(bracket)
        and (prefix == "" or (prefix[-2:] == "__" and digits(prefix[:-2], 3)))
        and len(tags) in (2, 3)
        and all(tag.startswith("[") for tag in tags[1:])
        and (len(tags[0]) == 3 and letters(tags[0]))
        and (len(tags) == 2 or tags[1][1:] in ("dru", "nod", "---"))
        and letters(tags[-1][1:], "_")
        and (digits(recording, 4) and number in ("1", "2", "3"))
    )


@given(
    st.from_regex(IRMAS_NAME, fullmatch=True),
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.integers(0, 3),
            st.text(st.sampled_from("[]-_019acldrunop ٣Ａ\n"), max_size=3) | st.sampled_from(["[dru]", "__", "012__"]),
        ),
        max_size=2,
    ),
)
@example("008__[cel][nod][cla]0058__1", [])
@example("[cel][cla]0058__1", [(17, 0, "\n")])
@example("[cel][cla]0058__1", [(10, 1, "٣")])
def test_one_step_away_from_a_name_is_one_only_where_the_grammar_says_so(
    name: str, edits: list[tuple[int, int, str]]
) -> None:
    for at, removed, put in edits:
        name = name[:at] + put + name[at + removed :]
    event("a name" if is_name(name) else "no name")
    assert (IRMAS_NAME.fullmatch(name) is not None) == is_name(name)


def test_every_quirk_of_the_real_names_parses(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "cla/008__[cla][nod][cla]0150__1.wav",  # clarinet in the first place, classical in the genre's
        "cla/[cla][cla]0151__2.wav",
        "cla/[cla][---][pop_roc]0152__3.wav",
        "voi/[voi][dru][cla]0153__1.wav",
        "voi/012__[voi][dru][jaz_blu]0154__1.wav",  # one recording with and without the prefix
        "voi/[voi][jaz_blu]0154__2.wav",
        "voi/.hidden.wav",
        "voi/notes.txt",
        "README.txt",
    )
    scanned = scan(Data(), tmp_path)
    assert [(excerpt.label, excerpt.recording) for excerpt in scanned] == [
        ("cla", "0150"),
        ("cla", "0152"),
        ("cla", "0151"),
        ("voi", "0154"),
        ("voi", "0153"),
        ("voi", "0154"),
    ]
    assert all(excerpt.path.is_file() and excerpt.path.stem == excerpt.name for excerpt in scanned)


def test_the_stand_in_parses_and_its_recordings_have_one_label(corpus: Path) -> None:
    scanned = scan(Data(), corpus)
    assert len(scanned) == 132
    assert {excerpt.label for excerpt in scanned} == set(CODES)
    labels = {excerpt.recording: excerpt.label for excerpt in scanned}
    assert all(labels[excerpt.recording] == excerpt.label for excerpt in scanned)


def test_all_that_does_not_fit_is_listed_in_one_message(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "cel/[cel][cla]0001__1.wav",
        "cel/[cel][cla]0001__4.wav",
        "cel/[cel][cla]001__1.wav",
        "cel/[cel][xyz][cla]0001__1.wav",
        "cel/[cel][cla]0001__2.flac",
        "flu/[gac][cla]0002__1.wav",
        "xyl/[xyl][cla]0003__1.wav",
    )
    with pytest.raises(DataError) as caught:
        scan(Data(), tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "6 files do not fit" in message
    for wrong in (
        "cel/[cel][cla]0001__4.wav: not a name of IRMAS",
        "cel/[cel][cla]001__1.wav: not a name of IRMAS",
        "cel/[cel][xyz][cla]0001__1.wav: not a name of IRMAS",
        "cel/[cel][cla]0001__2.flac: not a name of IRMAS",
        "flu/[gac][cla]0002__1.wav: the name says gac, the folder flu",
        "xyl/[xyl][cla]0003__1.wav: folder name must be one of: cel cla",
    ):
        assert wrong in message
    assert "cel/[cel][cla]0001__1.wav" not in message


def test_a_folder_of_any_classes_needs_no_irmas_names(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"class {i:02d}/[odd] {j}.v2.{('wav', 'FLAC')[j % 2]}" for i in range(13) for j in (1, 2)))
    scanned = scan(folder(root), root)
    assert len(scanned) == 26
    assert {excerpt.label for excerpt in scanned} == {f"class {i:02d}" for i in range(13)}
    assert scanned[0] == Excerpt(root / "class 00/[odd] 1.v2.FLAC", "class 00/[odd] 1.v2", "class 00", "[odd] 1.v2")


def test_a_folder_may_hold_the_same_stem_in_two_classes(tmp_path: Path) -> None:
    root = touch(tmp_path, "guitar/song.wav", "voice/song.wav", "voice/other.wav")
    scanned = scan(folder(root), root)
    assert [excerpt.name for excerpt in scanned] == ["guitar/song", "voice/other", "voice/song"]
    # Perhaps stems of one song: taken for one recording, so that they never stand on both sides.
    assert [excerpt.recording for excerpt in scanned] == ["song", "other", "song"]


def test_what_libsndfile_reads_is_an_excerpt(tmp_path: Path) -> None:
    endings = {
        "opus": "OGG",
        "ogg": "OGG",
        "flac": "FLAC",
        "mp3": "MP3",
        "caf": "CAF",
        "w64": "W64",
        "au": "AU",
        "aifc": "AIFF",
    }
    (tmp_path / "a").mkdir()
    for ending, kind in endings.items():
        subtype = "OPUS" if ending == "opus" else None
        soundfile.write(tmp_path / "a" / f"{ending}.{ending}", np.full(4800, 0.5), 48_000, subtype, format=kind)
    root = touch(tmp_path, "b/1.wav", "b/2.RAW")
    scanned = scan(folder(root), root)
    assert [excerpt.name for excerpt in scanned] == [*(f"a/{ending}" for ending in sorted(endings)), "b/1"]
    assert {read_form(excerpt.path).rate for excerpt in scanned[:-1]} == {48_000}
    assert {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"} < AUDIO


def test_what_is_passed_over_is_counted_by_its_kind(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.wav", "b/2.wav", "b/.hidden.wav", ".DS_Store")
    assert passed_over(root) == []
    touch(
        tmp_path, "notes.txt", "3.wav", "a/takes/1.wav", "a/x.m4a", "a/cover.jpg", "b/README", "c/only.txt", "d/e/1.wav"
    )
    (root / "empty").mkdir()
    assert passed_over(root) == [
        "left out: 2 files beside the class folders, such as 3.wav",
        "left out: 2 folders inside class folders, such as a/takes",
        "left out: 4 files with endings that are not read (.jpg .m4a .txt none), such as a/cover.jpg",
        "left out: 3 class folders without sound files, such as c",
    ]
    (root / "c/only.txt").unlink()
    (root / "c").rmdir()
    (root / "empty").rmdir()
    assert passed_over(root)[-1] == "left out: 1 class folder without sound files: d"
    assert len(scan(folder(root), root)) == 2


def test_recordings_come_from_a_csv_by_name_or_stem(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "a/1.wav", "a/2.wav", "b/1.wav", "b/3.wav")
    table = write_csv(
        tmp_path / "recordings.csv",
        ("more", "name", "recording"),
        ("", "a/1", "A"),
        ("", "b/1", "B"),
        ("", "2", "A"),
        ("", "3", "C"),
    )
    scanned = scan(folder(root, table), root)
    assert [(excerpt.name, excerpt.recording) for excerpt in scanned] == [
        ("a/1", "A"),
        ("a/2", "A"),
        ("b/1", "B"),
        ("b/3", "C"),
    ]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("name", "song"), ("1", "A")], "column recording is missing; expected columns: name, recording"),
        ([("name", "recording"), ("1", "A")], "1 excerpt is not in it, such as b/2"),
        ([("name", "recording"), ("", ""), ("1", "A"), ("b_2", "A")], "line 2: recording is empty; must be given"),
        ([("name", "recording"), ("1", "A"), ("b_2", "A")], "such as b/2; line 3: b_2 is no excerpt"),
        (
            [("name", "recording"), ("1", "A"), ("2", "A"), ("b/2.wav", "B")],
            "line 4: b/2.wav has the recording B, and A in line 3",
        ),
        ([("name", "recording"), ("1", "A"), ("2", "")], "line 3: recording is empty; must be given"),
        ([("name", "recording"), ("1", "A"), ("2",)], "line 3 has fewer values"),
        ([], "column name, recording is missing"),
    ],
)
def test_a_csv_of_recordings_that_does_not_fit_is_refused(
    tmp_path: Path, rows: list[tuple[str, ...]], reason: str
) -> None:
    root = touch(tmp_path / "data", "a/1.wav", "b/2.wav")
    with pytest.raises(DataError) as caught:
        scan(folder(root, write_csv(tmp_path / "recordings.csv", *rows)), root)
    assert reason in str(caught.value)
    assert f"data.recordings={tmp_path / 'recordings.csv'}" in str(caught.value)


def test_a_list_names_excerpts_by_stems_where_they_are_unique(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "a/1.wav", "b/1.wav", "b/x.mp3.wav", "b/song.OPUS")
    rows = ["a/1,A", "b/1.wav,B", "x.mp3,C", "song.opus,D", "elsewhere,E"]
    (tmp_path / "list.csv").write_text("\n\n".join(["name,recording", *rows]))
    scanned = scan(folder(root, tmp_path / "list.csv"), root)
    assert {excerpt.name: excerpt.recording for excerpt in scanned} == dict(
        zip(["a/1", "b/1", "b/x.mp3", "b/song"], "ABCD", strict=True)
    )
    (tmp_path / "list.csv").write_text("\n\n".join(["name,recording", rows[0], "1,B"]))
    with pytest.raises(DataError, match=r"list\.csv: line 5: 1 is of several classes; give a/1 or b/1$"):
        scan(folder(root, tmp_path / "list.csv"), root)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*nowhere: there is no such folder"):
        scan(Data(), tmp_path / "nowhere")
    root = touch(tmp_path / "data", "a/1.wav", "b/2.wav")
    with pytest.raises(DataError, match=r"data\.recordings=.*nowhere\.csv: .*No such file"):
        scan(folder(root, tmp_path / "nowhere.csv"), root)


@pytest.mark.parametrize("names", [[], ["cel/[cel][cla]0001__1.wav"], ["[cel][cla]0001__1.wav"]])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names)
    for data in (Data(), folder(tmp_path)):
        with pytest.raises(DataError, match="fewer than two classes"):
            scan(data, tmp_path)


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.wav", "a/1.flac", "b/1.wav")
    with pytest.raises(DataError, match="the same name occurs twice: a/1"):
        scan(folder(root), root)


def test_the_digest_of_a_listing_sees_names_sizes_and_on_request_times(tmp_path: Path) -> None:
    def digests() -> tuple[str, str]:
        scanned = scan(folder(tmp_path), tmp_path)
        return listing_digest(scanned, times=False), listing_digest(scanned, times=True)

    touch(tmp_path, "a/1.wav", "b/2.wav")
    before = digests()
    (tmp_path / "a/1.wav").write_bytes(b"longer")
    longer = digests()
    assert longer[0] != before[0]
    (tmp_path / "a/1.wav").write_bytes(b"others")
    others = digests()
    assert others[0] == longer[0]
    assert others[1] != longer[1]
    (tmp_path / "a/1.wav").rename(tmp_path / "a/3.wav")
    assert digests()[0] != longer[0]
