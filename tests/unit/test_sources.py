"""Files to records: formats, audio folders, and the place that every error names."""

import hashlib
from pathlib import Path

import pytest

from msam.datasets.canonical import DatasetError
from streams import sources
from streams.records import AudioUpload, Play, TrackMetadata, UserProfile
from streams.sources import SourceError


def write(path: Path, text: str) -> Path:
    """The file, written."""
    path.write_text(text)
    return path


def test_csv_and_json_lines_give_the_same_records(tmp_path: Path) -> None:
    table = write(tmp_path / "plays.csv", "user_id,track_id,timestamp\nu1,t1,5\nu2,t2,6\n")
    lines = write(
        tmp_path / "plays.jsonl",
        '{"user_id":"u1","track_id":"t1","played_at":5}\n\n{"user_id":"u2","track_id":"t2","played_at":6}\n',
    )
    expected = [Play("u1", "t1", 5.0), Play("u2", "t2", 6.0)]
    assert [event.record for event in sources.plays(table)] == expected
    assert [event.record for event in sources.plays(lines)] == expected
    assert [event.where for event in sources.plays(lines)] == [f"{lines}:1", f"{lines}:3"]
    renamed = write(tmp_path / "plays.txt", lines.read_text())
    assert [event.record for event in sources.plays(renamed, "jsonl")] == expected
    assert sources.count(table) == 2


def test_tracks_and_profiles(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "track_id,title,artist_id,artist,album_id,album,labels\nt1,A,a1,B,,,rock|pop\n")
    (track,) = sources.tracks(table)
    assert track.record == TrackMetadata("t1", "A", "a1", "B", labels=("rock", "pop"))
    (user,) = sources.profiles(write(tmp_path / "u.csv", "user_id,gender,age,country\nu1,,24,\n"))
    assert user.record == UserProfile("u1", age=24)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "user_id,track_id,timestamp\nu1,t1,5\na\tb,t1,6\n", "p.csv:3: user_id .*control character"),
        ("p.jsonl", '{"user_id":"u1","track_id":"t1","played_at":5}\n[]\n', "p.jsonl:2: not a JSON object"),
        (
            "p.jsonl",
            '{"user_id":"u1","track_id":"t1","played_at":5}\n{"user_id":"u1"}\n',
            "p.jsonl:2: .*track_id is missing",
        ),
    ],
)
def test_what_comes_before_a_bad_row_stands(tmp_path: Path, name: str, text: str, message: str) -> None:
    events = sources.plays(write(tmp_path / name, text))
    assert next(events).record == Play("u1", "t1", 5.0)
    with pytest.raises(SourceError, match=message):
        next(events)


def test_audio_folder_by_reference(data_dir: Path) -> None:
    folder = data_dir / "audio_cc"
    uploads = [event.record for event in sources.audio(folder)]
    suffixes = {path.suffix for path in folder.iterdir()}
    assert ".txt" in suffixes and len(uploads) == sum(path.suffix != ".txt" for path in folder.iterdir()) > 40
    assert len(uploads) == sources.count(folder)
    piano = folder / "piano.wav"
    digest = hashlib.sha256(piano.read_bytes()).hexdigest()
    assert AudioUpload("piano", piano.resolve().as_uri(), digest, content_type="audio/wav") in uploads


def test_audio_csv_relative_paths_and_inline(tmp_path: Path) -> None:
    clips = tmp_path / "my clips"
    clips.mkdir()
    (clips / "a.ogg").write_bytes(b"OggS")
    table = write(tmp_path / "audio.csv", "track_id,path\nt1,my clips/a.ogg\n")
    (by_reference,) = sources.audio(table)
    assert isinstance(by_reference.record, AudioUpload) and by_reference.record.uri == (clips / "a.ogg").as_uri()
    (inline,) = sources.audio(table, inline=True)
    digest = hashlib.sha256(b"OggS").hexdigest()
    assert inline.record == AudioUpload("t1", sha256=digest, content=b"OggS", content_type="audio/ogg")


def test_audio_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"audio.csv:2: cannot read .*nowhere.wav"):
        list(sources.audio(write(tmp_path / "audio.csv", "track_id,path\nt1,nowhere.wav\n")))
    with pytest.raises(DatasetError, match=r"audio.csv:2: track_id or path is empty"):
        list(sources.audio(write(tmp_path / "audio.csv", "track_id,path\nt1,\n")))
    folder = tmp_path / "clips"
    folder.mkdir()
    with pytest.raises(DatasetError, match="holds no audio files"):
        list(sources.audio(folder))
    (folder / "a.wav").write_bytes(b"RIFF")
    monkeypatch.setattr(sources, "INLINE_LIMIT", 3)
    with pytest.raises(SourceError, match="has 4 bytes; inline takes at most 3"):
        list(sources.audio(folder, inline=True))
    (folder / "a.ogg").write_bytes(b"OggS")
    with pytest.raises(SourceError, match=r"track 'a' is also in a\.ogg"):
        list(sources.audio(folder))
