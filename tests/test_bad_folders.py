"""What folders and tables go wrong with, one row a case, and the outcome each must have.

An error is one line that names the file, the trouble and the remedy; a skip is listed with its
reason while everything else is read; junk is ignored and counted. Nothing else may happen: no
traceback, no hang, no good recording lost.
"""

import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile

from recordings import RATE, write_classes, write_table, write_wav
from stapes import audio
from stapes.dataset import DecodedDataset, decode, load_dataset
from stapes.errors import DataError
from stapes.splits import folds, split
from stapes.tables import quoted

GOOD = {"cat/0.wav", "cat/1.wav", "dog/0.wav", "dog/1.wav"}
"""What ``write_classes`` makes: the good input that no bad one may cost."""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs POSIX special files")


def run(data: Path) -> DecodedDataset:
    """What every command that trains does with its data."""
    decoded = decode(load_dataset(data), sample_rate=RATE)
    split(decoded.clips, share=0.5, seed=0)
    return decoded


@dataclass(frozen=True)
class Skipped:
    """These are skipped, each for a reason that holds this text; the good ones are read."""

    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Ignored:
    """Junk of these kinds is counted, nothing is skipped; the good ones are read."""

    kinds: dict[str, int]


@dataclass(frozen=True)
class Read:
    """All of these are read beside the good ones, with a warning that holds this text, if any."""

    names: tuple[str, ...]
    warning: str = ""


@dataclass(frozen=True)
class Error:
    """One line that holds all of these texts."""

    texts: tuple[str, ...]


Outcome = Skipped | Ignored | Read | Error


def make_folder_named_wav(root: Path) -> None:
    (root / "cat" / "x.wav").mkdir()


def make_fifo(root: Path) -> None:
    os.mkfifo(root / "cat" / "x.wav")


def make_socket(root: Path) -> None:
    here = os.getcwd()
    os.chdir(root / "cat")  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.wav")
    finally:
        os.chdir(here)


def link_device(root: Path) -> None:
    (root / "cat" / "x.wav").symlink_to("/dev/zero")


def link_to_itself(root: Path) -> None:
    (root / "cat" / "x.wav").symlink_to("x.wav")


def link_to_nothing(root: Path) -> None:
    (root / "cat" / "x.wav").symlink_to("nowhere.wav")


def link_to_parent(root: Path) -> None:
    (root / "cat" / "loop").symlink_to("..")


def link_to_other_class(root: Path) -> None:
    (root / "cat" / "loop").symlink_to("../dog")


def link_web(root: Path) -> None:
    """Folders that link twice to the next one: 2 ** 40 paths to the last."""
    for i in range(40):
        folder = root / "cat" / f"web{i}"
        folder.mkdir()
        if i < 39:
            (folder / "a").symlink_to(f"../web{i + 1}")
            (folder / "b").symlink_to(f"../web{i + 1}")


def make_unreadable(root: Path) -> None:
    write_wav(root / "cat" / "x.wav").chmod(0)


def make_unreadable_folder(root: Path) -> None:
    write_wav(root / "cat" / "deep" / "x.wav").parent.chmod(0)


def write_names(*names: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for name in names:
            write_wav(root / name)

    return make


def write_text(*names: str, content: bytes = b"") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)

    return make


def write_csv(
    *lines: str,
    header: str = "file_name,label",
    end: str = "\n",
    start: str = "",
    encoding: str = "utf-8",
) -> Callable[[Path], None]:
    """``metadata.csv`` of these lines, after a header."""

    def make(root: Path) -> None:
        text = start + "".join(line + end for line in (header, *lines))
        (root / "metadata.csv").write_bytes(text.encode(encoding, "surrogateescape"))

    return make


def copy_file(source: str, target: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)

    return make


def remove_class(root: Path) -> None:
    shutil.rmtree(root / "dog")


def empty_class(root: Path) -> None:
    (root / "bird").mkdir()


def spoil_class(root: Path) -> None:
    for path in (root / "dog").iterdir():
        path.write_bytes(b"not audio at all")


def one_clip(root: Path) -> None:
    (root / "dog" / "1.wav").unlink()


def leak(root: Path) -> None:
    """Turn the class folders into train and test, with one recording in both."""
    for part in ("train", "test"):
        write_classes(root / part)
    shutil.copy(root / "train" / "cat" / "0.wav", root / "test" / "cat" / "copy.wav")
    shutil.rmtree(root / "cat")
    shutil.rmtree(root / "dog")


ROWS = ("cat/0.wav,cat", "cat/1.wav,cat", "dog/0.wav,dog", "dog/1.wav,dog")
TIMED = "file_name,label,start_seconds,end_seconds"
LONG = "n" * 251 + ".wav"
ODD = ("cat/a\nb.wav", "cat/😀 \t'\".wav", "cat/" + LONG, "cat/caf\udce9.wav", "cat/-rf.wav")
TWINS = ("cat/caf\u00e9.wav", "cat/cafe\u0301.wav")

CASES: dict[str, tuple[Callable[[Path], None], Outcome]] = {
    "30 folder named x.wav": (make_folder_named_wav, Skipped(("cat/x.wav",), "a folder")),
    "30 FIFO": (make_fifo, Skipped(("cat/x.wav",), "a FIFO")),
    "30 socket": (make_socket, Skipped(("cat/x.wav",), "a socket")),
    "30 device": (link_device, Skipped(("cat/x.wav",), "a device")),
    "31 link to itself": (link_to_itself, Skipped(("cat/x.wav",), "looping link")),
    "31 dangling link": (link_to_nothing, Skipped(("cat/x.wav",), "dangling")),
    "31 link to a parent": (link_to_parent, Skipped(("cat/loop",), "read already")),
    "31 link to another class": (link_to_other_class, Skipped(("cat/loop",), "read already")),
    "31 web of links": (link_web, Skipped(tuple(
        sorted(f"cat/web{i}/{name}" for i in range(39) for name in "ab")), "read already")),
    "32 odd names": (write_names(*ODD), Read(ODD)),
    "32 twins in NFC and NFD": (write_names(*TWINS), Read(TWINS)),
    "32 odd names in a table": (
        lambda root: [make(root) for make in (write_names(*ODD), write_csv(*ROWS, *(
            '"' + name.replace('"', '""') + '",cat' for name in ODD)))] and None,
        Read(ODD),
    ),
    "32 label that is not UTF-8": (
        write_csv(*ROWS[:-1], "dog/1.wav,h\udcfcnd"), Error((".csv:5:", "h\\udcfcnd", "UTF-8"))),
    "32 class folder that is not UTF-8": (
        write_names("h\udcfcnd/0.wav"), Error(("h\\udcfcnd", "rename"))),
    "33 junk": (
        write_text("cat/.DS_Store", "dog/._0.wav", "dog/.hidden.wav", "Thumbs.db", "desktop.ini",
                   "cat/.ipynb_checkpoints/0-checkpoint.wav", "__MACOSX/cat/._0.wav", "notes.txt"),
        Ignored({".DS_Store": 1, "._ files of macOS": 1, "hidden files": 1, "Thumbs.db": 1,
                 "desktop.ini": 1, ".ipynb_checkpoints": 1, "__MACOSX": 1, ".txt files": 1}),
    ),
    "34 partial downloads": (
        write_text("cat/x.wav.part", "cat/y.wav.crdownload", "dog/x.tmp", "dog/z.wav.download"),
        Skipped(("cat/x.wav.part", "cat/y.wav.crdownload", "dog/x.tmp", "dog/z.wav.download"),
                "partial download"),
    ),
    "36 unreadable file": (make_unreadable, Skipped(("cat/x.wav",), "Permission denied")),
    "36 unreadable folder": (make_unreadable_folder, Skipped(("cat/deep",), "Permission denied")),
    "37 labels for missing files": (
        write_csv(*ROWS, *(f"cat/no{i}.wav,cat" for i in range(7))),
        Error(("7 labels for missing files", "cat/no0.wav, cat/no1.wav, cat/no2.wav, cat/no3.wav, "
               "cat/no4.wav and 2 more")),
    ),
    "37 files without labels": (
        write_csv(*ROWS[:2]), Error(("2 files without labels (dog/0.wav, dog/1.wav)",))),
    "37 files outside of every class folder": (
        write_names("stray.wav"), Error(("1 files without labels (stray.wav)",))),
    "38 BOM, semicolons, CRLF, blank lines": (
        write_csv(*(row.replace(",", ";") for row in ROWS), " ; ", "", header="file_name;label",
                  end="\r\n", start="\ufeff"), Read(())),
    "38 tabs, old Mac line ends": (
        write_csv(*(row.replace(",", "\t") for row in ROWS), header="File_Name\tLabel", end="\r"),
        Read(())),
    "38 UTF-16": (write_csv(*ROWS, encoding="utf-16"), Read(())),
    "38 decimal commas": (
        write_csv(*(f"{row.replace(',', ';')};0,0;0,1" for row in ROWS),
                  header=TIMED.replace(",", ";")), Read(())),
    "38 quotes and spaces": (
        write_csv(*(f'"{row.replace(",", chr(34) + "," + chr(34) + " ")} "' for row in ROWS)),
        Read(())),
    "38 repeated rows": (
        write_csv(*ROWS, *ROWS[:2]), Read((), "2 repeated row(s) are read once")),
    "38 empty file name": (write_csv(*ROWS, ",cat"), Error((".csv:6: file_name is empty",))),
    "38 empty label": (
        write_csv("cat/0.wav, ", *ROWS[1:]), Error(("metadata.csv:2: label is empty",))),
    "38 empty source": (
        write_csv(*(f"{row}," for row in ROWS), header="file_name,label,source"), Read(())),
    "38 too many cells": (write_csv(*ROWS, "cat/0.wav,cat,x"), Error((":6: 3 cells",))),
    "38 too few cells": (write_csv(*ROWS, "cat/0.wav"), Error((":6: 1 cells",))),
    "38 line number after a name of two lines": (
        lambda root: [make(root) for make in (write_names("cat/a\nb.wav"), write_csv(
            '"cat/a\nb.wav",cat', *ROWS, "dog/1.wav,"))] and None,
        Error(("metadata.csv:8: label is empty",))),
    "38 quote that never ends": (write_csv(*ROWS, '"cat/0.wav,cat'), Error((":6: not a table",))),
    "38 no column label": (
        write_csv(*ROWS, header="file_name,lable"), Error((":1:", "rename lable to label"))),
    "38 no column file_name": (
        write_csv(*ROWS, header="filename,label"), Error((":1:", "rename filename to file_name"))),
    "38 misspelt column": (
        write_csv(*(f"{row},x" for row in ROWS), header="file_name,label,sorce"),
        Error((":1:", "unknown column sorce", "did you mean source"))),
    "38 times as other programs call them": (
        write_csv(*(f"{row},0,0.1" for row in ROWS), header="file_name,label,Start,End"),
        Error((":1:", "unknown column start", "did you mean start_seconds"))),
    "38 column twice": (
        write_csv(*(f"{row},x" for row in ROWS), header="file_name,label,label"),
        Error((":1:", "column label appears twice"))),
    "38 empty table": (write_text("metadata.csv"), Error((":1:", "no column file_name"))),
    "38 a spreadsheet named .csv": (
        write_text("metadata.csv", content=b"PK\x03\x04\x00\xff\xfe,\x00\r\x1a"),
        Error((":1:", "no column file_name"))),
    "38 fold that is no whole number": (
        write_csv(*(f"{row},1.5" for row in ROWS), header="file_name,label,fold"),
        Error((":2: fold is 1.5",))),
    "38 time that is no number": (
        write_csv(*(f"{row},1:30," for row in ROWS), header=TIMED),
        Error((":2: start_seconds is '1:30'",))),
    "38 time that is NaN": (
        write_csv(*(f"{row},,nan" for row in ROWS), header=TIMED), Error((":2: end_seconds",))),
    "38 time that is infinite": (
        write_csv(*(f"{row},inf," for row in ROWS), header=TIMED), Error((":2: start_seconds",))),
    "39 end before start": (
        write_csv(*(f"{row},0.1,0.05" for row in ROWS), header=TIMED),
        Error((":2: end_seconds is 0.05", "after start_seconds, 0.1"))),
    "39 end at start": (
        write_csv(*(f"{row},0.1,0.1" for row in ROWS), header=TIMED), Error((":2: end_seconds",))),
    "39 negative start": (
        write_csv(*(f"{row},-1,0.1" for row in ROWS), header=TIMED), Error((":2: start_seconds",))),
    "39 end past the recording": (
        write_csv(*(f"{row},0,{0.1 + i}" for i, row in enumerate(ROWS)), header=TIMED),
        Error((":3: the event reaches to 1.1 s, but cat/1.wav ends at 0.200 s",))),
    "39 start past the recording": (
        write_csv(*(f"{row},{i}," for i, row in enumerate(ROWS)), header=TIMED),
        Error((":3: the event reaches to 1 s",))),
    "39 an odd name in the message": (
        lambda root: [make(root) for make in (write_names("cat/caf\udce9.wav"), write_csv(
            *(f"{row},," for row in ROWS), "cat/caf\udce9.wav,cat,0,9", header=TIMED))] and None,
        Error((":6: the event reaches to 9 s, but cat/caf\\udce9.wav ends at 0.200 s",))),
    "40 one class": (remove_class, Error(("only one class, cat", "at least two"))),
    "40 an empty class": (empty_class, Error(("without recordings (bird)",))),
    "40 a class with nothing that can be read": (
        spoil_class, Error(("nothing of class dog can be read", "first skipped: dog/0.wav"))),
    "40 a class with nothing that can be read, and a bad file elsewhere": (
        lambda root: [make(root) for make in (spoil_class, write_text("cat/0.wav"))] and None,
        Error(("nothing of class dog can be read", "first skipped: dog/0.wav"))),
    "40 a class with one clip": (one_clip, Error(("class dog has clips of 1 source",))),
    "41 the same audio in train and test": (
        leak, Read(("test/cat/copy.wav",), "THE SAME AUDIO IS IN TRAIN AND TEST 1 time(s)")),
    "42 copies with two labels": (
        copy_file("cat/0.wav", "dog/copy.wav"),
        Error(("1 pairs of copies have different labels",
               "cat/0.wav (cat) = dog/copy.wav (dog)"))),
    "42 a file with two labels": (
        write_csv(*ROWS, "cat/0.wav,dog"),
        Error((":6: cat/0.wav has another label than in ", "metadata.csv:2: keep one"))),
    "42 empty files are no copies": (
        write_text("cat/e.wav", "dog/e.wav"), Skipped(("cat/e.wav", "dog/e.wav"), "")),
    "42 damaged files are no copies": (
        write_text("cat/e.wav", "dog/e.wav", content=b"RIFF\x24\0\0\0WAVE" + bytes(40)),
        Skipped(("cat/e.wav", "dog/e.wav"), "")),
    "43 odd time stamps": (
        write_names("cat/20240101_000000.wav", "cat/99999999_999999.wav"),
        Read(("cat/20240101_000000.wav", "cat/99999999_999999.wav"))),
}  # fmt: skip
POSIX_ONLY = ("30 FIFO", "30 socket", "30 device")


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        pytest.param(*case, id=name, marks=linux_only if name in POSIX_ONLY else ())
        for name, case in CASES.items()
    ],
)
def test_bad_folder(tmp_path, make, outcome, request):
    root = tmp_path / "data"
    write_classes(root)
    make(root)
    if "unreadable" in request.node.callspec.id and os.geteuid() == 0:
        pytest.skip("root may read everything")
    if isinstance(outcome, Error):
        with pytest.raises(DataError) as caught:
            run(root)
        message = str(caught.value)
        assert "\n" not in message and message.isprintable()
        assert [text for text in outcome.texts if text not in message] == []
        return
    decoded = run(root)
    found = {clip.name for clip in decoded.clips}
    skipped = [skip.name for skip in decoded.skipped]
    if isinstance(outcome, Skipped):
        assert (found, tuple(skipped)) == (GOOD, outcome.names)
        assert all(outcome.reason in skip.reason for skip in decoded.skipped)
        assert all(skip.reason and "\n" not in skip.reason for skip in decoded.skipped)
        assert not any(str(root) in skip.reason for skip in decoded.skipped)  # it has the name
    elif isinstance(outcome, Ignored):
        assert (found, skipped) == (GOOD, [])
        assert load_dataset(root).ignored == outcome.kinds
    else:
        assert set(outcome.names) <= found and skipped == []
        assert found >= GOOD or not (root / "cat").is_dir()
        assert outcome.warning in " ".join(decoded.warnings)
        assert bool(outcome.warning) == bool(decoded.warnings)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_36_unreadable_even_for_root(tmp_path, monkeypatch, what):
    write_classes(tmp_path)
    write_wav(tmp_path / "cat" / "deep" / "x.wav")
    refused = "x.wav" if what == "file" else "deep"

    def refusing(function):
        def call(path, *args, **kwargs):
            if Path(path).name == refused:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(audio, "read", refusing(audio.read))
    decoded = run(tmp_path)
    assert {clip.name for clip in decoded.clips} == GOOD
    (skip,) = decoded.skipped
    assert skip.name == ("cat/deep/x.wav" if what == "file" else "cat/deep")
    assert "Permission denied" in skip.reason


def test_35_a_file_that_vanishes(tmp_path):
    write_classes(tmp_path, n_each=3)
    dataset = load_dataset(tmp_path)
    (tmp_path / "cat" / "2.wav").unlink()
    decoded = decode(dataset, sample_rate=RATE)
    assert len(decoded.clips) == 5
    assert [(s.name, s.reason) for s in decoded.skipped] == [
        ("cat/2.wav", "cannot be read: No such file or directory")
    ]


@linux_only
def test_35_a_file_that_becomes_a_fifo_does_not_block(tmp_path):
    write_classes(tmp_path, n_each=3)
    dataset = load_dataset(tmp_path)
    (tmp_path / "cat" / "2.wav").unlink()
    os.mkfifo(tmp_path / "cat" / "2.wav")
    decoded = decode(dataset, sample_rate=RATE)
    assert [(s.name, s.reason) for s in decoded.skipped] == [
        ("cat/2.wav", "a FIFO, not a file: give a file of audio")
    ]


def test_35_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    write_classes(tmp_path, n_each=3)
    read = audio.read

    def read_while_recording(path, **kwargs):
        recording = read(path, **kwargs)
        if path.name == "2.wav" and path.parent.name == "cat":
            with path.open("ab") as file:
                file.write(bytes(100))
        return recording

    monkeypatch.setattr(audio, "read", read_while_recording)
    decoded = decode(load_dataset(tmp_path), sample_rate=RATE)
    assert [(s.name, s.reason) for s in decoded.skipped] == [
        ("cat/2.wav", "changed while it was read")
    ]


def test_39_an_event_in_the_lost_part_of_a_damaged_file_is_lost_and_no_error(tmp_path):
    write_classes(tmp_path)
    whole = write_wav(tmp_path / "cat" / "x.wav", seconds=2.0).read_bytes()
    (tmp_path / "cat" / "x.wav").write_bytes(whole[: len(whole) // 2])
    rows = [*(f"{row},," for row in ROWS), "cat/x.wav,cat,0,0.5", "cat/x.wav,cat,1.5,2"]
    write_table(tmp_path / "metadata.csv", TIMED, *rows)
    decoded = run(tmp_path)
    assert {clip.name for clip in decoded.clips} == GOOD | {"cat/x.wav"}
    assert [skip.name for skip in decoded.skipped] == ["cat/x.wav"]


def test_40_fewer_clips_than_folds(tmp_path):
    decoded = run(write_classes(tmp_path, n_each=4))
    with pytest.raises(DataError, match=r"class cat has clips of 4 source\(s\), and 5 are needed"):
        folds(decoded.clips, seed=0)


def test_42_silence_contradicts_nothing(tmp_path):
    write_classes(tmp_path)
    for label in ("cat", "dog"):
        soundfile.write(tmp_path / label / "silence.wav", [0.0] * RATE, RATE)
    decoded = decode(load_dataset(tmp_path), sample_rate=RATE)
    assert len(decoded.clips) + len(decoded.skipped) == 6
    assert decoded.warnings == ()


def test_42_the_same_samples_with_two_labels_in_other_formats(tmp_path):
    write_classes(tmp_path)
    samples, rate = soundfile.read(tmp_path / "cat" / "0.wav", dtype="int16")
    soundfile.write(tmp_path / "dog" / "copy.flac", samples, rate)
    with pytest.raises(DataError, match=r"cat/0.wav \(cat\) = dog/copy.flac \(dog\)"):
        run(tmp_path)


def test_44_formulas_in_names_come_out_as_text(tmp_path):
    write_classes(tmp_path)
    write_wav(tmp_path / "=cmd|' " / "=1+1.wav")
    clip = load_dataset(tmp_path).clips[0]
    assert quoted(clip.name).startswith("'=") and quoted(clip.label).startswith("'=")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "no recordings"),
        (lambda path: path.write_bytes(b"RIFF"), "not a folder and not a .csv"),
        (lambda path: os.mkfifo(path), "not a folder and not a .csv"),
        (lambda path: path.symlink_to(path), "not a folder and not a .csv"),
        (lambda path: write_text("readme.txt", "cat/notes.txt")(path), "no recordings"),
    ],
    ids=["missing", "empty folder", "a recording", "a FIFO", "a looping link", "only texts"],
)
def test_what_is_no_data_set(tmp_path, make, match):
    make(tmp_path / "data.wav")
    with pytest.raises(DataError, match=match):
        load_dataset(tmp_path / "data.wav")


@linux_only
def test_a_table_that_is_a_fifo_does_not_block(tmp_path):
    write_classes(tmp_path)
    os.mkfifo(tmp_path / "metadata.csv")
    with pytest.raises(DataError, match="a FIFO"):
        load_dataset(tmp_path)


def test_a_table_in_the_wrong_place_names_what_it_misses(tmp_path):
    write_classes(tmp_path / "audio")
    write_table(tmp_path / "metadata.csv", "file_name,label", "0.wav,cat")
    with pytest.raises(DataError, match=r"1 labels for missing files \(0.wav\)"):
        load_dataset(tmp_path)
